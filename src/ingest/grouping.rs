//! The grouping key in a path of the Pushgateway: `job/<job>[/<label>/<value>…]`.
//!
//! A name may end in `@base64`: its value is base64 then, in the URL-safe alphabet, padded or not; `=`
//! stands for the empty value. The paths are those of
//! <https://github.com/prometheus/pushgateway#url>.

use crate::text::start_of;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use thiserror::Error;

/// Most labels of a grouping key.
const LABELS_MAX: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A path that names no group.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GroupingError {
    /// Not of the form.
    #[error("the path must be /metrics/job/JOB, with /LABEL/VALUE behind it as often as wanted")]
    Form,
    /// The job is empty.
    #[error("the job's name is empty")]
    NoJob,
    /// A label's name that can't be one.
    #[error("{name:?} can't be a label of a group: use letters, digits and _, no digit or __ first")]
    Name {
        /// Its beginning.
        name: String,
    },
    /// A label twice.
    #[error("the label {name:?} is given more than once")]
    Repeated {
        /// Its name.
        name: String,
    },
    /// Not base64.
    #[error("the value of {name:?} is not base64 in the URL-safe alphabet")]
    Base64 {
        /// Whose value.
        name: String,
    },
    /// Not UTF-8.
    #[error("the value of {name:?} is not UTF-8")]
    NotUtf8 {
        /// Whose value.
        name: String,
    },
}

/// Reads the labels of a group from what stands behind `/metrics/` in a path, `job` first. Labels with an
/// empty value are left out: they are absent ones.
///
/// # Errors
/// When it names no group.
pub fn parse(path: &str) -> Result<Vec<(String, String)>, GroupingError> {
    let mut parts: Vec<&str> = path.splitn(2 * LABELS_MAX + 2, '/').collect();
    if parts.len() % 2 == 1 && parts.last() == Some(&"") {
        parts.pop();
    }
    let (pairs, rest) = parts.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > LABELS_MAX {
        return Err(GroupingError::Form);
    }
    let mut labels: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    for (place, [name, value]) in pairs.iter().enumerate() {
        let (name, value) = pair(name, value)?;
        if (name == "job") != (place == 0) {
            return Err(if place == 0 { GroupingError::Form } else { GroupingError::Repeated { name } });
        }
        if labels.iter().any(|(known, _)| *known == name) {
            return Err(GroupingError::Repeated { name });
        }
        labels.push((name, value));
    }
    match labels.first() {
        None => return Err(GroupingError::Form),
        Some((_, job)) if job.is_empty() => return Err(GroupingError::NoJob),
        Some(_) => {}
    }
    labels.retain(|(_, value)| !value.is_empty());
    Ok(labels)
}

fn pair(name: &str, value: &str) -> Result<(String, String), GroupingError> {
    let name = percent_decode_str(name).decode_utf8_lossy();
    let (name, is_base64) = match name.strip_suffix("@base64") {
        Some(name) => (name, true),
        None => (&*name, false),
    };
    let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !word || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("__") {
        return Err(GroupingError::Name { name: start_of(name) });
    }
    let value: Vec<u8> = percent_decode_str(value).collect();
    let value = match (is_base64, value.as_slice()) {
        (false, _) => value,
        (true, b"=") => Vec::new(),
        (true, text) => BASE64.decode(text).map_err(|_| GroupingError::Base64 { name: name.to_owned() })?,
    };
    let value = String::from_utf8(value).map_err(|_| GroupingError::NotUtf8 { name: name.to_owned() })?;
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    #[test]
    fn groups_are_read_as_the_pushgateway_reads_them() {
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        for (path, labels) in [
            ("job/some_job", own(&[("job", "some_job")])),
            ("job/a%20b+c/instance/x%2Fy", own(&[("job", "a b+c"), ("instance", "x/y")])),
            ("job/j/path@base64/L3Zhci90bXA", own(&[("job", "j"), ("path", "/var/tmp")])),
            ("job@base64/ag==/empty@base64/=", own(&[("job", "j")])),
            ("job/j/", own(&[("job", "j")])),
        ] {
            assert_eq!(parse(path), Ok(labels), "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for path in ["", "job", "job/", "x/y", "job/j/a", "jobs/j", "job/j/a/b/a/c", "job/j/job/k"] {
            assert!(parse(path).is_err(), "{path}");
        }
        for path in ["job/j/1a/b", "job/j/__a/b", "job/j/a-b/c", "job/j/a@base64/!", "job/j/a/%ff"] {
            assert!(!matches!(parse(path), Ok(_) | Err(GroupingError::Form)), "{path}");
        }
        assert_eq!(parse("job@base64/="), Err(GroupingError::NoJob));
        assert_eq!(parse(&format!("job/j{}", "/a/b".repeat(1_000))), Err(GroupingError::Form));
    }

    proptest! {
        #[test]
        fn any_value_comes_through_base64(value in ".{1,20}") {
            let path = format!("job/j/l@base64/{}", URL_SAFE_NO_PAD.encode(&value));
            prop_assert_eq!(parse(&path).map(|labels| labels[1].1.clone()), Ok(value));
        }

        #[test]
        fn no_path_panics(path in ".{0,60}") {
            let _ = parse(&path);
            let _ = parse(&format!("job/{path}"));
        }
    }
}
