//! Every document that clients of Kubernetes fetch to learn what there is, ready to be sent.
//!
//! They are made when what they say changes, not when they are asked for: an answer is a copy of a
//! pointer, whatever the store or the cluster do.

use super::catalog::Snapshot;
use super::discovery::{AggregatedDiscovery, group, group_list, resource_list, version_info};
use super::openapi;
use super::served::{GroupVersion, Served};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A document in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// As it is sent.
    pub body: Bytes,
    /// A hash of it, in hexadecimal.
    pub hash: String,
}

impl Document {
    fn of(value: &impl Serialize) -> Self {
        // None of them has a key that is no text, or anything else that could fail.
        let body = serde_json::to_vec(value).unwrap_or_default();
        let mut hash = String::new();
        for byte in digest(&SHA256, &body).as_ref() {
            let _ = write!(hash, "{byte:02X}");
        }
        Self { body: body.into(), hash }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Documents {
    /// `/apis`
    pub groups: Document,
    /// `/apis`, to those who ask for one document of everything: version `v2`.
    pub aggregated_v2: Document,
    /// The same in version `v2beta1`.
    pub aggregated_v2beta1: Document,
    /// `/apis/<group>`
    pub group: BTreeMap<&'static str, Document>,
    /// `/apis/<group>/<version>`
    pub resources: BTreeMap<GroupVersion, Document>,
    /// `/version`
    pub version: Document,
    /// `/openapi/v2`
    pub openapi_v2: Document,
    /// `/openapi/v3`
    pub openapi_v3_index: Document,
    /// `/openapi/v3/apis/<group>/<version>`
    pub openapi_v3: BTreeMap<GroupVersion, Document>,
}

impl Documents {
    /// Of what is served and was known at one moment.
    #[must_use]
    pub fn new(served: &Served, snapshot: &Snapshot) -> Self {
        let aggregated = |version| Document::of(&AggregatedDiscovery::new(version, served, snapshot));
        let openapi_v3: BTreeMap<_, _> =
            served.versions().map(|version| (version, Document::of(&openapi::v3(version)))).collect();
        let hashes = openapi_v3.iter().map(|(version, document)| (*version, document.hash.as_str()));
        let openapi_v3_index = Document::of(&openapi::v3_index(hashes));
        let of_group =
            |(name, versions): (&'static str, Vec<_>)| (name, Document::of(&group(name, &versions)));
        let resources = served.versions().map(|gv| (gv, Document::of(&resource_list(gv, snapshot))));
        Self {
            groups: Document::of(&group_list(served)),
            aggregated_v2: aggregated("v2"),
            aggregated_v2beta1: aggregated("v2beta1"),
            group: served.groups().into_iter().map(of_group).collect(),
            resources: resources.collect(),
            version: Document::of(&version_info()),
            openapi_v2: Document::of(&openapi::v2(served)),
            openapi_v3_index,
            openapi_v3,
        }
    }
}
