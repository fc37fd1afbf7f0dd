//! Remembers which custom resources have been pushed, so that discovery knows them after a restart.
//!
//! For each, an info series ([`resource_info_labels`]) is appended, and again each hour, so that it
//! outlives the retention for as long as the resource is pushed.

use crate::kubernetes::resources::{Resource, resource_info_labels};
use lookback_storage::Labels;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often an info series gets a sample, in milliseconds.
const INTERVAL_MS: i64 = 3_600_000;

/// Most info series remembered; past that all are forgotten, and appended once more.
const REMEMBERED_MAX: usize = 10_000;

/// When each info series was last appended, by this process.
#[derive(Debug, Default)]
pub struct ResourceInfo {
    // A mutex: pushes of custom resources only, for one look into the map.
    appended_ms: Mutex<HashMap<Labels, i64>>,
}

impl ResourceInfo {
    /// The info series to append now for a push of this resource, if one is due.
    #[must_use]
    pub fn due(&self, resource: &Resource, namespaced: bool, now_ms: i64) -> Option<Labels> {
        let labels = resource_info_labels(resource, namespaced)?;
        let fresh = |appended_ms: &i64| (0..INTERVAL_MS).contains(&now_ms.saturating_sub(*appended_ms));
        if self.lock().get(&labels).is_some_and(fresh) { None } else { Some(labels) }
    }

    /// Notes that an info series is durable.
    pub fn appended(&self, labels: Labels, now_ms: i64) {
        let mut appended_ms = self.lock();
        if appended_ms.len() >= REMEMBERED_MAX {
            appended_ms.clear();
        }
        appended_ms.insert(labels, now_ms);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, i64>> {
        // The map is whole between any two of its calls.
        self.appended_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::resources::resolve;

    #[test]
    fn an_info_series_is_due_once_an_hour() {
        let info = ResourceInfo::default();
        let widgets = resolve("widgets.example.com").expect("custom");
        let labels = info.due(&widgets, true, 0).expect("due");
        assert!(info.due(&widgets, true, 1).is_some(), "not appended yet");
        info.appended(labels, 1);
        assert_eq!(info.due(&widgets, true, INTERVAL_MS), None);
        assert!(info.due(&widgets, false, INTERVAL_MS).is_some());
        assert!(info.due(&widgets, true, INTERVAL_MS + 1).is_some());
        assert_eq!(info.due(&resolve("pods").expect("built in"), true, 0), None);
    }
}
