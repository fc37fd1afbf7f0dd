//! Retention rules that follow their file while the server runs.

use crate::config::retention::{RulesError, parse_rules, read_rules_file};
use crate::telemetry::Metrics;
use lookback_storage::Db;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// A file of rules and what of it holds.
pub struct RulesFile {
    path: PathBuf,
    /// What was read last, whether or not it could be used.
    seen: Result<String, RulesError>,
}

impl RulesFile {
    /// Reads the file and makes its rules the engine's.
    ///
    /// # Errors
    /// When the file can't be read, or its rules can't be used.
    pub fn apply(path: &Path, engine: &Db) -> Result<Self, RulesError> {
        let text = read_rules_file(path)?;
        set(path, &text, engine)?;
        Ok(Self { path: path.to_owned(), seen: Ok(text) })
    }

    /// Looks at the file again; where it has changed, its rules hold from now on. `None`: it has not.
    fn look_again(&mut self, engine: &Db) -> Option<Result<(), RulesError>> {
        let now = read_rules_file(&self.path);
        if now == self.seen {
            return None;
        }
        self.seen = now.clone();
        Some(now.and_then(|text| set(&self.path, &text, engine)))
    }

    /// Follows the file until `shutdown`. Rules that can't be used leave those before in force, and that
    /// is logged and shown in the metrics.
    pub async fn follow(mut self, engine: Db, metrics: Arc<Metrics>, shutdown: CancellationToken) {
        metrics.retention_rules.set(1);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let engine = engine.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let outcome = self.look_again(&engine);
                (self, outcome)
            });
            let Ok((this, outcome)) = looked.await else {
                tracing::error!("retention rules are not followed any more: restart the server");
                metrics.retention_rules.set(0);
                return;
            };
            self = this;
            match outcome {
                None => {}
                Some(Ok(())) => {
                    metrics.retention_rules.set(1);
                    tracing::info!(path = %self.path.display(), "new retention rules hold");
                }
                Some(Err(error)) => {
                    metrics.retention_rules.set(0);
                    tracing::error!(%error, "the retention rules before hold on");
                }
            }
        }
    }
}

fn set(path: &Path, text: &str, engine: &Db) -> Result<(), RulesError> {
    let rules = parse_rules(path, text)?;
    engine.set_retention_rules(rules).map_err(|error| RulesError::new(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookback_storage::Options;

    #[test]
    fn a_changed_file_holds_and_a_broken_one_leaves_the_rules_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rules.yaml");
        let engine =
            Db::open(&dir.path().join("data"), Options::default(), uuid::Uuid::from_u128(1)).expect("opens");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        assert!(RulesFile::apply(&path, &engine).is_err(), "there is no such file");
        write("rules: [{class: a, match: m, keep: 1d}]");
        let mut file = RulesFile::apply(&path, &engine).expect("legal");
        assert_eq!(file.look_again(&engine), None);
        write("rules: [{class: a, match: m, keep: 2d}]");
        assert_eq!(file.look_again(&engine), Some(Ok(())));
        for broken in ["rules: [", "rules: [{class: default, match: m, keep: 2d}]"] {
            write(broken);
            assert!(matches!(file.look_again(&engine), Some(Err(_))), "{broken}");
            assert_eq!(file.look_again(&engine), None, "it is told once");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(file.look_again(&engine), Some(Err(_))));
        write("rules: []");
        assert_eq!(file.look_again(&engine), Some(Ok(())));
    }
}
