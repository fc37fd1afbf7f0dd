//! What pods and nodes use by the `resourceRules` of `--config`, where it has any: they come before what is collected.

use crate::app::App;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::kubernetes::mapping::Resolver;
use crate::query::usage::{PodUsage, Usage};
use crate::rules::usage::UsageAsked;
use crate::store::Scope;
use std::collections::BTreeMap;

/// A question, as rules take it.
pub(super) struct ByRules<'a> {
    app: &'a App,
    resolver: Resolver,
    scope: &'a Scope,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl<'a> ByRules<'a> {
    pub(super) fn of(
        app: &'a App,
        caller: &'a Caller,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Self {
        Self { app, resolver: app.resolver(), scope: &caller.scope, namespace, name }
    }

    /// Whether there are any.
    pub(super) fn hold(app: &App) -> bool {
        app.rules().is_some_and(|rules| rules.resource_rules().is_some())
    }

    fn asked(&self) -> UsageAsked<'_> {
        UsageAsked {
            namespace: self.namespace,
            name: self.name,
            scope: self.scope,
            resolver: &self.resolver,
            now_ms: self.app.clock.now_ms(),
        }
    }

    /// Of pods; `None`: there are no rules for that.
    pub(super) async fn pods(&self) -> Result<Option<Vec<PodUsage>>, ApiError> {
        let Some(rules) = self.app.rules() else { return Ok(None) };
        Ok(rules.pods_usage(&self.asked()).await?)
    }

    /// Of nodes; `None`: there are no rules for that.
    pub(super) async fn nodes(&self) -> Result<Option<BTreeMap<String, Usage>>, ApiError> {
        let Some(rules) = self.app.rules() else { return Ok(None) };
        Ok(rules.nodes_usage(&self.asked()).await?)
    }
}
