//! The series of many objects, in little memory: what those of a pod say, but for which pod it is, those of its
//! siblings say too, and that is kept once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lookback_storage::{Labels, METRIC_NAME_LABEL};
use std::collections::HashSet;
use std::sync::Arc;

/// A series without the labels that name its object.
type Common = Arc<[(Box<str>, Box<str>)]>;

/// The series of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The labels that name it.
    identity: Box<[(&'static str, Box<str>)]>,
    /// The rest of each series.
    series: Vec<Common>,
}

impl Facts {
    /// None yet of the object that is named by these labels; one without a value is left out.
    pub(super) fn of<const N: usize>(identity: [(&'static str, &Option<String>); N]) -> Self {
        let given = |(label, value): (&'static str, &Option<String>)| Some((label, value.as_deref()?.into()));
        Self { identity: identity.into_iter().filter_map(given).collect(), series: Vec::new() }
    }

    /// Adds a series of this name, unless it can't be one.
    pub(super) fn add(
        &mut self,
        name: &str,
        meta: &ObjectMeta,
        more: impl IntoIterator<Item = (String, String)>,
    ) {
        let own = [(METRIC_NAME_LABEL, Some(name)), ("namespace", meta.namespace.as_deref())];
        let own = own.into_iter().filter_map(|(label, value)| Some((label.into(), value?.into())));
        let more = more.into_iter().map(|(label, value)| (label.into(), value.into()));
        let common: Common = own.chain(more).filter(|(_, value): &(_, Box<str>)| !value.is_empty()).collect();
        if self.labels(&common).is_some() {
            self.series.push(common);
        }
    }

    fn labels(&self, common: &Common) -> Option<Labels> {
        let identity = self.identity.iter().map(|(label, value)| (*label, &**value));
        let common = common.iter().map(|(label, value)| (&**label, &**value));
        Labels::new(common.chain(identity.filter(|(_, value)| !value.is_empty()))).ok()
    }

    /// Its series.
    pub(super) fn series(&self) -> impl Iterator<Item = Labels> {
        self.series.iter().filter_map(|common| self.labels(common))
    }

    /// Whether it has no series.
    pub(super) const fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

/// What objects have in common.
#[derive(Debug, Default)]
pub(super) struct Shared(HashSet<Common>);

impl Shared {
    /// The same, with what others have too from here.
    pub(super) fn share(&mut self, mut facts: Facts) -> Facts {
        for common in &mut facts.series {
            match self.0.get(common) {
                Some(same) => *common = Arc::clone(same),
                None => drop(self.0.insert(Arc::clone(common))),
            }
        }
        facts.series.shrink_to_fit();
        facts
    }

    /// Lets go of an object, and of what it alone had.
    pub(super) fn release(&mut self, facts: Facts) {
        for common in facts.series {
            if Arc::strong_count(&common) <= 2 {
                self.0.remove(&common);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_objects_have_in_common_is_kept_once_and_goes_with_the_last() {
        let meta = ObjectMeta { namespace: Some("shop".to_owned()), ..ObjectMeta::default() };
        let facts = |pod: &str, phase: &str| {
            let mut facts = Facts::of([("pod", &Some(pod.to_owned())), ("uid", &None)]);
            facts.add("kube_pod_status_phase", &meta, [("phase".to_owned(), phase.to_owned())]);
            facts.add(
                "no name of a metric but for the length of",
                &meta,
                [("x".repeat(10_000), "y".to_owned())],
            );
            facts
        };
        let mut shared = Shared::default();
        let mut all = Vec::new();
        for (pod, phase) in [("a", "Running"), ("b", "Running"), ("c", "Pending")] {
            all.push(shared.share(facts(pod, phase)));
        }
        assert_eq!(shared.0.len(), 2);
        let told: Vec<String> = all.iter().flat_map(Facts::series).map(|labels| labels.to_string()).collect();
        assert_eq!(told[1], r#"kube_pod_status_phase{namespace="shop",phase="Running",pod="b"}"#);
        assert_eq!(told.len(), 3);
        for (facts, left) in all.into_iter().zip([2, 1, 0]) {
            shared.release(facts);
            assert_eq!(shared.0.len(), left);
        }
    }
}
