//! The address of a pushed value: which object, which metric.

use crate::kubernetes::described::{DescribeError, DescribedObject, describe_path};
use crate::kubernetes::mapping::Resolver;
use crate::text::start_of;
use percent_encoding::percent_decode_str;
use thiserror::Error;

/// What comes before every address.
pub const PREFIX: &str = "/write-metrics";

/// A path that is no such address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// A part is not UTF-8 when its percent signs are resolved.
    #[error("the path is not UTF-8 where it says {segment:?}")]
    NotUtf8 {
        /// The part, as sent.
        segment: String,
    },
    /// Its form, its resource or a name in it can't be used.
    #[error(transparent)]
    Describe(#[from] DescribeError),
}

/// Reads a path as it stands in the request, such as `/write-metrics/nodes/n1/load`, into the object
/// and the metric. Its segments are split before their percent signs are resolved, so that nothing in a
/// name can add a segment.
///
/// # Errors
/// When the path has another form, or a part that can't be used.
pub fn parse(resolver: &Resolver, path: &str) -> Result<(DescribedObject, String), PathError> {
    // More segments than the longest form has are not looked at.
    const SEGMENTS_MAX: usize = 6;
    let rest = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/'));
    let rest = rest.ok_or(DescribeError::Path)?;
    let segments = rest.splitn(SEGMENTS_MAX, '/').map(|segment| {
        percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| PathError::NotUtf8 { segment: start_of(segment) })
    });
    let segments: Vec<_> = segments.collect::<Result<_, _>>()?;
    Ok(describe_path(resolver, &segments)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn series(path: &str) -> String {
        let (object, metric) = parse(&Resolver::default(), path).expect("a path");
        object.labels(&metric, &[]).expect("labels").to_string()
    }

    #[test]
    fn the_three_forms_are_read() {
        for (path, labels) in [
            ("/write-metrics/namespaces/default/pods/my-pod/rps", r#"rps{namespace="default",pod="my-pod"}"#),
            ("/write-metrics/nodes/n1/load", r#"load{node="n1"}"#),
            ("/write-metrics/namespaces/prod/metrics/cost", r#"cost{namespace="prod"}"#),
            (
                "/write-metrics/namespaces/a%20b/pods/p%22%C3%A4/q+1",
                "{\"q+1\",namespace=\"a b\",pod=\"p\\\"ä\"}",
            ),
        ] {
            assert_eq!(series(path), labels);
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_three() {
        for path in [
            "",
            "/",
            "/write-metrics",
            "/write-metricsx/nodes/n1/m",
            "/write-metrics/nodes/n1",
            "/write-metrics/namespaces/x/pods/p/m/more",
            "/write-metrics/a/b/c/d",
        ] {
            let error = parse(&Resolver::default(), path).expect_err(path);
            assert_eq!(error, PathError::Describe(DescribeError::Path), "{path}");
            assert_eq!(error.to_string().matches("{metric}").count(), 3, "{error}");
        }
        let error = |path| parse(&Resolver::default(), path).expect_err("refused");
        assert!(matches!(error("/write-metrics/nodes/n/%ff"), PathError::NotUtf8 { .. }));
        for path in ["/write-metrics/nodes//m", "/write-metrics/nodes/%2A/m", "/write-metrics/nodes/a%2Fb/m"]
        {
            assert!(matches!(error(path), PathError::Describe(DescribeError::Name { .. })), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/write-metrics)?[/a-z%0-9*]{0,40}") {
            let _ = parse(&Resolver::default(), &path);
        }

        #[test]
        fn any_usable_name_comes_through(
            parts in proptest::collection::vec("[^/%*.\\p{Cc}]{1,12}", 3)
        ) {
            let encode = |part: &String| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
            let [namespace, name, metric] = [&parts[0], &parts[1], &parts[2]].map(encode);
            let path = format!("/write-metrics/namespaces/{namespace}/pods/{name}/{metric}");
            let (object, metric) = parse(&Resolver::default(), &path).expect("a path");
            prop_assert_eq!(object.namespace.as_ref(), Some(&parts[0]));
            prop_assert_eq!((&object.name, &metric), (&parts[1], &parts[2]));
        }
    }
}
