//! Which series belong to a workload.
//!
//! By label: `workload="W"`, given at push. By the name that controllers give their pods:
//!
//! | pod | of |
//! |---|---|
//! | `W` | a pod of its own |
//! | `W-<ordinal>` | a StatefulSet |
//! | `W-<5 letters or digits>` | a DaemonSet or Job |
//! | `W-<hash>-<5 letters or digits>` | a Deployment; the hash has 6 to 10 digits and consonants |
//! | the first 58 bytes of `W-<hash>-`, then 5 letters or digits | a Deployment with a long name |
//!
//! The hash has no vowels (Kubernetes makes it so) and is long: so `web` does not take the pods of the
//! DaemonSet `web-api`, `web-api-x2k9p`, for its own. A name can still belong to two workloads; the
//! label can't.

use super::RangeError;
use lookback_storage::{MatchOp, Matcher};

/// The label that says which workload a series belongs to.
const WORKLOAD_LABEL: &str = "workload";

/// Kubernetes cuts the beginning of a generated name to this length and adds 5 letters or digits.
const GENERATED_NAME_BYTES_MAX: usize = 58;

/// Longest `-<hash>-`.
const HASH_BYTES_MAX: usize = 12;

/// Series that say that they belong to `workload`.
pub(super) fn by_label(workload: &str) -> Vec<Matcher> {
    vec![Matcher::equal(WORKLOAD_LABEL, workload)]
}

/// Series whose pod is named as controllers would name a pod of `workload`, and that don't say that they
/// belong to another one.
pub(super) fn by_pod_name(workload: &str) -> Result<Vec<Matcher>, RangeError> {
    let pods = Matcher::new("pod", MatchOp::Regex, pod_name_expression(workload))
        .map_err(|error| RangeError::parameter("workload", error.to_string()))?;
    Ok(vec![pods, Matcher::equal(WORKLOAD_LABEL, "")])
}

fn pod_name_expression(workload: &str) -> String {
    let name = escape(workload);
    let suffix = "[a-z0-9]{5}";
    let mut expression = format!("{name}(-[0-9]+|-{suffix}|-[0-9b-df-hj-np-tv-z]{{6,10}}-{suffix})?");
    if workload.len() + HASH_BYTES_MAX > GENERATED_NAME_BYTES_MAX {
        let fits = |cut: &usize| workload.is_char_boundary(*cut);
        let cut = (0..=GENERATED_NAME_BYTES_MAX.min(workload.len())).rfind(fits).unwrap_or_default();
        let (begin, _) = workload.split_at(cut);
        let hash = match GENERATED_NAME_BYTES_MAX - cut {
            0 => String::new(),
            1 => "-".to_owned(),
            left => format!("-[0-9b-df-hj-np-tv-z]{{{}}}", left - 1),
        };
        expression = format!("{expression}|{}{hash}{suffix}", escape(begin));
    }
    expression
}

/// For messages.
pub(super) fn pod_name_examples(workload: &str) -> String {
    format!("{workload}-<hash>-<5 characters>, {workload}-<5 characters>, {workload}-<number> or {workload}")
}

/// So that every character stands for itself in a regular expression.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_pod_of(workload: &str, pod: &str) -> bool {
        by_pod_name(workload).expect("compiles")[0].matches_value(pod)
    }

    #[test]
    fn pods_are_known_by_the_names_that_controllers_give() {
        for pod in ["web", "web-0", "web-12", "web-x2k9p", "web-7d4b9c6f5-x2k9p", "web-66b6c48dd5-vmz8q"] {
            assert!(is_pod_of("web", pod), "{pod}");
        }
        for pod in [
            "",
            "web-",
            "webx",
            "my-web",
            "web-api-x2k9p",
            "web-db-x2k9p",
            "web-worker-x2k9p",
            "web-api-7d4b9c6f5-x2k9p",
            "web-7d4b9c6f5-x2k9pp",
            "web-api-0",
            "web-x2k9p\n",
        ] {
            assert!(!is_pod_of("web", pod), "{pod}");
        }
    }

    #[test]
    fn a_name_that_is_no_word_is_taken_literally() {
        assert!(is_pod_of("<", "<-0") && !is_pod_of("<", "A") && !is_pod_of(".*", "web"));
    }

    #[test]
    fn pods_of_a_deployment_with_a_long_name_are_found() {
        for length in 30..=70 {
            let workload = "w".repeat(length);
            let base = format!("{workload}-66b6c48dd5-");
            let pod = format!("{}vmz8q", &base[..base.len().min(GENERATED_NAME_BYTES_MAX)]);
            assert!(is_pod_of(&workload, &pod), "{length}: {pod}");
        }
    }

    #[test]
    fn a_series_of_another_workload_is_not_taken_by_its_pod_name() {
        let matchers = by_pod_name("web").expect("compiles");
        let series = |workload| {
            lookback_storage::Labels::new([("__name__", "cpu"), ("pod", "web-0"), ("workload", workload)])
                .expect("valid")
        };
        assert!(matchers.iter().all(|m| m.matches(&series(""))));
        assert!(!matchers.iter().all(|m| m.matches(&series("other"))));
    }

    proptest! {
        #[test]
        fn any_workload_is_taken_literally(workload in ".{1,100}", other in ".{1,20}") {
            let matchers = by_pod_name(&workload).expect("compiles");
            prop_assert!(matchers[0].matches_value(&workload));
            let ordinal = format!("{}-3", workload);
            prop_assert!(matchers[0].matches_value(&ordinal));
            if !other.starts_with(&workload) {
                prop_assert!(!matchers[0].matches_value(&other));
            }
        }
    }
}
