//! Names and labels of many objects of one resource, in little memory.
//!
//! Objects of one kind mostly share their labels (a ReplicaSet's pods differ by none), so each set of
//! labels is kept once, as one text.

use super::selector::Requirements;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Between keys and values; no label of Kubernetes has it.
const SEPARATOR: char = '\0';

/// The labels of an object, sorted: `key\0value\0key\0value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSet(Arc<str>);

impl LabelSet {
    fn text<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let mut text = String::new();
        for (key, value) in labels {
            if !text.is_empty() {
                text.push(SEPARATOR);
            }
            text.extend([key, "\0", value]);
        }
        text
    }

    /// All labels, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split(SEPARATOR);
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut parts = self.0.split(SEPARATOR);
        while let (Some(found), Some(value)) = (parts.next(), parts.next()) {
            if found == key {
                return Some(value);
            }
        }
        None
    }

    /// Whether it has what is required.
    #[must_use]
    pub fn has(&self, requirements: &Requirements) -> bool {
        requirements.hold(|key| self.get(key))
    }
}

/// The objects of one namespace, by name.
type Named = HashMap<Box<str>, LabelSet>;

/// The objects of one resource.
#[derive(Debug, Default)]
pub struct ObjectIndex {
    /// By namespace (empty: of the whole cluster), then by name.
    objects: HashMap<Box<str>, Named>,
    sets: HashSet<LabelSet>,
    count: usize,
}

impl ObjectIndex {
    /// Adds an object, or changes its labels.
    pub fn put<'a>(
        &mut self,
        namespace: &str,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let set = self.shared(LabelSet(LabelSet::text(labels).into()));
        if !self.objects.contains_key(namespace) {
            self.objects.insert(namespace.into(), HashMap::new());
        }
        let Some(named) = self.objects.get_mut(namespace) else { return };
        match named.insert(name.into(), set) {
            Some(former) => self.release(former),
            None => self.count += 1,
        }
    }

    /// Takes an object away.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let Some(named) = self.objects.get_mut(namespace) else { return };
        let Some(set) = named.remove(name) else { return };
        if named.is_empty() {
            self.objects.remove(namespace);
        }
        self.count -= 1;
        self.release(set);
    }

    fn shared(&mut self, set: LabelSet) -> LabelSet {
        if let Some(same) = self.sets.get(&set) {
            return same.clone();
        }
        self.sets.insert(set.clone());
        set
    }

    /// Forgets a label set that no other object has: then only `sets` and this one hold it.
    fn release(&mut self, set: LabelSet) {
        if Arc::strong_count(&set.0) <= 2 {
            self.sets.remove(&set);
        }
    }

    /// The labels of an object; `None`: there is no such object.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&LabelSet> {
        self.objects.get(namespace)?.get(name)
    }

    /// Tells of many objects whether they have what is required.
    #[must_use]
    pub fn selecting<'a>(&'a self, requirements: &'a Requirements) -> Selecting<'a> {
        Selecting { index: self, requirements, namespace: None, seen: Vec::new() }
    }

    /// The objects of a namespace (empty: of the whole cluster) that have what is required: how many.
    #[must_use]
    pub fn count_selected(&self, namespace: &str, requirements: &Requirements) -> usize {
        let Some(named) = self.objects.get(namespace) else { return 0 };
        if requirements.is_empty() {
            return named.len();
        }
        let mut selecting = self.selecting(requirements);
        named.values().filter(|labels| selecting.has(labels)).count()
    }

    /// The names of the objects of a namespace (empty: of the whole cluster) that have what is required, sorted.
    #[must_use]
    pub fn selected(&self, namespace: &str, requirements: &Requirements) -> Vec<String> {
        let named = self.objects.get(namespace).into_iter().flatten();
        let selected = named.filter(|(_, labels)| labels.has(requirements));
        let mut names: Vec<String> = selected.map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// About how many bytes it takes: texts, and what the tables hold for each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        use std::mem::size_of;
        const ALLOCATION: usize = 16;
        let named = |named: &Named| {
            let names: usize = named.keys().map(|name| name.len() + ALLOCATION).sum();
            names + named.capacity() * (size_of::<(Box<str>, LabelSet)>() + 1)
        };
        let objects: usize = self.objects.values().map(named).sum();
        let sets: usize = self.sets.iter().map(|set| set.0.len() + 2 * size_of::<usize>() + ALLOCATION).sum();
        objects + sets + self.sets.capacity() * (size_of::<LabelSet>() + 1)
    }
}

/// Most sets of labels of which a [`Selecting`] remembers what it found.
const SEEN_MAX: usize = 8;

/// Selects objects of an index, one after the other: what is shared by many of them is looked at once.
pub struct Selecting<'a> {
    index: &'a ObjectIndex,
    requirements: &'a Requirements,
    /// Where the object before lay.
    namespace: Option<(&'a str, &'a Named)>,
    /// Sets of labels, and whether they have what is required.
    seen: Vec<(&'a LabelSet, bool)>,
}

impl<'a> Selecting<'a> {
    /// Whether an object is there, and has what is required.
    pub fn selects(&mut self, namespace: &str, name: &str) -> bool {
        let named = match self.namespace {
            Some((known, named)) if known == namespace => named,
            _ => match self.index.objects.get_key_value(namespace) {
                Some((known, named)) => {
                    self.namespace = Some((known, named));
                    named
                }
                None => return false,
            },
        };
        named.get(name).is_some_and(|labels| self.has(labels))
    }

    fn has(&mut self, labels: &'a LabelSet) -> bool {
        let same = |(seen, _): &&(&LabelSet, bool)| Arc::ptr_eq(&seen.0, &labels.0);
        if let Some((_, has)) = self.seen.iter().find(same) {
            return *has;
        }
        let has = labels.has(self.requirements);
        if self.seen.len() < SEEN_MAX {
            self.seen.push((labels, has));
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::selector::parse;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn requirements(selector: &str) -> Requirements {
        Requirements::of(&parse(selector).expect("a selector"))
    }

    #[test]
    fn objects_are_found_by_name_and_counted_by_labels() {
        let mut index = ObjectIndex::default();
        for i in 0..5 {
            let tier = if i < 2 { "front" } else { "back" };
            index.put("shop", &format!("p{i}"), [("app", "web"), ("tier", tier)]);
        }
        index.put("", "n1", []);
        assert_eq!((index.len(), index.sets.len()), (6, 3));
        assert_eq!(index.get("shop", "p4").and_then(|labels| labels.get("tier")), Some("back"));
        assert_eq!(index.get("other", "p4"), None);
        for (selector, count) in
            [("", 5), ("app=web", 5), ("tier in (front)", 2), ("!app", 0), ("tier!=front", 3), ("x", 0)]
        {
            assert_eq!(index.count_selected("shop", &requirements(selector)), count, "{selector}");
            assert_eq!(index.selected("shop", &requirements(selector)).len(), count, "{selector}");
        }
        index.put("shop", "p4", [("app", "web")]);
        index.remove("shop", "p3");
        index.remove("shop", "p3");
        index.remove("shop", "p2");
        assert_eq!((index.len(), index.sets.len()), (4, 3), "nobody has the back tier's labels any more");
        assert!(index.get("", "n1").is_some_and(|labels| labels.has(&requirements("!app"))));
    }

    #[test]
    fn fifty_thousand_pods_take_less_than_a_kilobyte_each() {
        let mut index = ObjectIndex::default();
        for i in 0..50_000 {
            let (workload, name) = (i / 20, format!("web-frontend-{}-7d4b9c6f5-{i:05}", i / 20));
            let hash = format!("7d4b9c6f{workload:05}");
            let workload = format!("web-frontend-{workload}");
            // Each as a pod of a StatefulSet has them, which share nothing.
            let labels = [
                ("app.kubernetes.io/component", "frontend"),
                ("app.kubernetes.io/instance", workload.as_str()),
                ("app.kubernetes.io/managed-by", "Helm"),
                ("app.kubernetes.io/name", workload.as_str()),
                ("app.kubernetes.io/part-of", "the-web-shop"),
                ("app.kubernetes.io/version", "v1.27.3-build.20261122"),
                ("controller-revision-hash", hash.as_str()),
                ("helm.sh/chart", "web-frontend-4.11.2"),
                ("statefulset.kubernetes.io/pod-name", name.as_str()),
                ("topology.kubernetes.io/region", "eu-central-1"),
                ("topology.kubernetes.io/zone", "eu-central-1a"),
            ];
            index.put(&format!("team-{}", i % 50), &name, labels);
        }
        let bytes_each = index.bytes() / index.len();
        println!("{} pods with labels of their own: {bytes_each} bytes each", index.len());
        assert!(bytes_each <= 1_024, "{bytes_each}");
    }

    proptest! {
        #[test]
        fn it_knows_what_was_put_and_not_removed(
            steps in proptest::collection::vec(("[ab]?", "[p-s]", proptest::option::of(
                proptest::collection::btree_map("[k-m]", "[x-z]?", 0..3))), 0..60),
        ) {
            let mut index = ObjectIndex::default();
            let mut known: BTreeMap<(String, String), BTreeMap<String, String>> = BTreeMap::new();
            for (namespace, name, labels) in steps {
                match labels {
                    Some(labels) => {
                        index.put(&namespace, &name, labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
                        known.insert((namespace, name), labels);
                    }
                    None => {
                        index.remove(&namespace, &name);
                        known.remove(&(namespace, name));
                    }
                }
            }
            prop_assert_eq!(index.len(), known.len());
            let distinct: std::collections::BTreeSet<_> = known.values().collect();
            prop_assert_eq!(index.sets.len(), distinct.len());
            for ((namespace, name), labels) in &known {
                let found = index.get(namespace, name).expect("known");
                for key in ["k", "l", "m"] {
                    prop_assert_eq!(found.get(key), labels.get(key).map(String::as_str));
                }
            }
            for selector in ["", "k", "k=x,l!=y", "m in (x,z)"] {
                let requirements = requirements(selector);
                let mut selecting = index.selecting(&requirements);
                for namespace in ["", "a", "b"] {
                    let is_selected = |name: &str| {
                        index.get(namespace, name).is_some_and(|labels| labels.has(&requirements))
                    };
                    for name in ["p", "q", "r", "s"] {
                        prop_assert_eq!(selecting.selects(namespace, name), is_selected(name), "{}", selector);
                    }
                    let count = ["p", "q", "r", "s"].into_iter().filter(|name| is_selected(name)).count();
                    prop_assert_eq!(index.count_selected(namespace, &requirements), count);
                }
            }
        }
    }
}
