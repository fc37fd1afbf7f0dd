//! Which API groups and versions are served.
//!
//! All are but `metrics.k8s.io`, which most clusters have from metrics-server, unless `--runtime-config` turns some on
//! or off, in kube-apiserver's own words: where another adapter owns a version, Lookback must not claim it in its
//! discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// The group of metrics of objects.
pub const CUSTOM_METRICS_GROUP: &str = "custom.metrics.k8s.io";
/// The group of metrics that need no object.
pub const EXTERNAL_METRICS_GROUP: &str = "external.metrics.k8s.io";

/// The group of what pods and nodes use.
pub const RESOURCE_METRICS_GROUP: &str = "metrics.k8s.io";

/// A version of a group; of each group the preferred one is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupVersion {
    /// `custom.metrics.k8s.io/v1beta2`
    CustomV1Beta2,
    /// `custom.metrics.k8s.io/v1beta1`
    CustomV1Beta1,
    /// `external.metrics.k8s.io/v1beta1`
    ExternalV1Beta1,
    /// `metrics.k8s.io/v1beta1`
    ResourceV1Beta1,
}

impl GroupVersion {
    /// All that there are.
    pub const ALL: [Self; 4] =
        [Self::CustomV1Beta2, Self::CustomV1Beta1, Self::ExternalV1Beta1, Self::ResourceV1Beta1];

    /// The group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::CustomV1Beta2 | Self::CustomV1Beta1 => CUSTOM_METRICS_GROUP,
            Self::ExternalV1Beta1 => EXTERNAL_METRICS_GROUP,
            Self::ResourceV1Beta1 => RESOURCE_METRICS_GROUP,
        }
    }

    /// The version, as in a path.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::CustomV1Beta2 => "v1beta2",
            Self::CustomV1Beta1 | Self::ExternalV1Beta1 | Self::ResourceV1Beta1 => "v1beta1",
        }
    }

    /// Whether it is served where nothing is said of it.
    #[must_use]
    pub const fn is_on_by_default(self) -> bool {
        !matches!(self, Self::ResourceV1Beta1)
    }

    /// The kind of its answers; of pods where there are two.
    #[must_use]
    pub const fn list_kind(self) -> &'static str {
        match self {
            Self::CustomV1Beta2 | Self::CustomV1Beta1 => "MetricValueList",
            Self::ExternalV1Beta1 => "ExternalMetricValueList",
            Self::ResourceV1Beta1 => "PodMetricsList",
        }
    }

    /// The name of the APIService that registers it.
    #[must_use]
    pub fn api_service(self) -> String {
        format!("{}.{}", self.version(), self.group())
    }

    /// The one of this group and version.
    #[must_use]
    pub fn of(group: &str, version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.group() == group && known.version() == version)
    }
}

/// As in `apiVersion`.
impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group(), self.version())
    }
}

/// The versions that are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served(BTreeSet<GroupVersion>);

impl Default for Served {
    fn default() -> Self {
        Self(GroupVersion::ALL.into_iter().filter(|version| version.is_on_by_default()).collect())
    }
}

/// A `--runtime-config` that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} turns nothing on or off: use api/all=false, a group such as {EXTERNAL_METRICS_GROUP}=false, or a \
     version such as {CUSTOM_METRICS_GROUP}/v1beta2=false"
)]
pub struct RuntimeConfigError(String);

impl Served {
    /// What is on by default, as changed by these settings, the most general first: `api/all`, then groups, then versions.
    ///
    /// # Errors
    /// When one names nothing that there is, or has no `=true` or `=false`.
    pub fn of_runtime_config<'a>(
        settings: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RuntimeConfigError> {
        let mut by_key = BTreeMap::new();
        for setting in settings {
            let wrong = || RuntimeConfigError(setting.to_owned());
            let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
            let value: bool = value.parse().map_err(|_| wrong())?;
            let exists = |gv: &GroupVersion| key == gv.group() || key == gv.to_string();
            if key != "api/all" && !GroupVersion::ALL.iter().any(exists) {
                return Err(wrong());
            }
            by_key.insert(key, value);
        }
        let served = GroupVersion::ALL.into_iter().filter(|gv| {
            let keys = [gv.to_string(), gv.group().to_owned(), "api/all".to_owned()];
            keys.iter().find_map(|key| by_key.get(key.as_str())).copied().unwrap_or(gv.is_on_by_default())
        });
        Ok(Self(served.collect()))
    }

    /// Whether it is.
    #[must_use]
    pub fn serves(&self, version: GroupVersion) -> bool {
        self.0.contains(&version)
    }

    /// All that are, those of a group together, the preferred one first.
    pub fn versions(&self) -> impl Iterator<Item = GroupVersion> + '_ {
        self.0.iter().copied()
    }

    /// Each group with its versions, the preferred one first.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<&'static str, Vec<GroupVersion>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for version in self.versions() {
            groups.entry(version.group()).or_default().push(version);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(settings: &[&str]) -> Vec<String> {
        let served = Served::of_runtime_config(settings.iter().copied()).expect("usable");
        served.versions().map(|version| version.api_service()).collect()
    }

    #[test]
    fn the_most_particular_setting_counts() {
        assert_eq!(served(&[]).len(), 3);
        assert_eq!(
            served(&["custom.metrics.k8s.io/v1beta2=false"]),
            ["v1beta1.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"]
        );
        assert_eq!(
            served(&["external.metrics.k8s.io/v1beta1=true", "api/all=false"]),
            ["v1beta1.external.metrics.k8s.io"]
        );
        assert_eq!(served(&["custom.metrics.k8s.io=false"]), ["v1beta1.external.metrics.k8s.io"]);
        assert_eq!(served(&["api/all=false", "metrics.k8s.io/v1beta1=true"]), ["v1beta1.metrics.k8s.io"]);
        assert_eq!(served(&["metrics.k8s.io=true"]).len(), 4);
    }

    #[test]
    fn what_turns_nothing_on_or_off_is_refused() {
        for setting in ["apps/v1=false", "custom.metrics.k8s.io", "api/all=no", ""] {
            let error = Served::of_runtime_config([setting]).expect_err(setting).to_string();
            assert!(error.contains("v1beta2=false"), "{error}");
        }
    }
}
