//! The address of a pushed value: which object, which metric.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use thiserror::Error;

/// What comes before every address.
pub const PREFIX: &str = "/write-metrics";

/// Which object a value describes, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePath {
    /// The object's namespace; `None` for objects outside of namespaces, and for a namespace itself.
    pub namespace: Option<String>,
    /// The resource as it was given, such as `pods` or `deployments.apps`; `namespaces` for a namespace.
    pub resource: String,
    /// The object's name.
    pub name: String,
    /// The metric's name.
    pub metric: String,
}

/// A path that is no such address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PathError {
    /// It has the form of none.
    #[error(
        "the path is none of /write-metrics/namespaces/{{namespace}}/{{resource}}/{{name}}/{{metric}}, /write-metrics/{{resource}}/{{name}}/{{metric}} (objects without a namespace) and /write-metrics/namespaces/{{name}}/metrics/{{metric}} (a namespace itself)"
    )]
    UnknownForm,
    /// A part is empty.
    #[error("the path's {part} is empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// A part is not UTF-8 when its percent signs are resolved.
    #[error("the path's {part} is not UTF-8")]
    NotUtf8 {
        /// Which part.
        part: &'static str,
    },
    /// The name asks for every object.
    #[error("the path's name is {name:?}: a value describes one object, so give its name")]
    Wildcard {
        /// The name.
        name: String,
    },
}

impl WritePath {
    /// Reads a path as it stands in the request. Its segments are split before their percent signs are
    /// resolved, so that a name may contain `%2F`.
    ///
    /// # Errors
    /// When the path has another form, or an empty or unreadable part.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        let rest = path.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('/'));
        let segments: Vec<&str> = rest.ok_or(PathError::UnknownForm)?.splitn(6, '/').collect();
        let (namespace, resource, name, metric) = match segments[..] {
            ["namespaces", name, "metrics", metric] => (None, "namespaces", name, metric),
            ["namespaces", namespace, resource, name, metric] => (Some(namespace), resource, name, metric),
            // `/namespaces/{name}/{metric}` is more often a path cut short than a value of a namespace.
            [resource, name, metric] if resource != "namespaces" => (None, resource, name, metric),
            _ => return Err(PathError::UnknownForm),
        };
        let namespace = namespace.map(|namespace| decode("namespace", namespace)).transpose()?;
        let path = Self {
            namespace,
            resource: decode("resource", resource)?,
            name: decode("name", name)?,
            metric: decode("metric", metric)?,
        };
        if path.name == "*" {
            return Err(PathError::Wildcard { name: path.name });
        }
        Ok(path)
    }
}

fn decode(part: &'static str, segment: &str) -> Result<String, PathError> {
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| PathError::NotUtf8 { part })?;
    if text.is_empty() { Err(PathError::Empty { part }) } else { Ok(Cow::into_owned(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn parsed(path: &str) -> (Option<String>, String, String, String) {
        let path = WritePath::parse(path).expect("a path");
        (path.namespace, path.resource, path.name, path.metric)
    }

    #[test]
    fn the_three_forms_are_read() {
        let own = |ns: Option<&str>, [r, n, m]: [&str; 3]| (ns.map(Into::into), r.into(), n.into(), m.into());
        assert_eq!(
            parsed("/write-metrics/namespaces/default/pods/my-pod/rps"),
            own(Some("default"), ["pods", "my-pod", "rps"])
        );
        assert_eq!(parsed("/write-metrics/nodes/n1/load"), own(None, ["nodes", "n1", "load"]));
        assert_eq!(
            parsed("/write-metrics/namespaces/prod/metrics/cost"),
            own(None, ["namespaces", "prod", "cost"])
        );
        assert_eq!(
            parsed("/write-metrics/namespaces/a%20b/pods/p%2F1/%C3%A4%22+%25"),
            own(Some("a b"), ["pods", "p/1", "ä\"+%"])
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for path in [
            "",
            "/",
            "/write-metrics",
            "/write-metrics/",
            "/write-metricsx/nodes/n1/m",
            "/write-metrics/nodes/n1",
            "/write-metrics/namespaces/x/foo",
            "/write-metrics/namespaces/x/pods/p/m/more",
            "/write-metrics/a/b/c/d",
        ] {
            assert_eq!(WritePath::parse(path), Err(PathError::UnknownForm), "{path}");
        }
        let error = |path| WritePath::parse(path).expect_err("refused");
        assert_eq!(error("/write-metrics/nodes//m"), PathError::Empty { part: "name" });
        assert_eq!(error("/write-metrics/namespaces//pods/p/m"), PathError::Empty { part: "namespace" });
        assert_eq!(error("/write-metrics/nodes/n/%ff"), PathError::NotUtf8 { part: "metric" });
        assert_eq!(error("/write-metrics/nodes/%2A/m"), PathError::Wildcard { name: "*".into() });
        assert_eq!(PathError::UnknownForm.to_string().matches("/write-metrics/").count(), 3);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/write-metrics)?[/a-z%0-9*]{0,40}") {
            let _ = WritePath::parse(&path);
        }

        #[test]
        fn any_names_come_through(parts in proptest::collection::vec(".{1,12}", 4)) {
            prop_assume!(parts[2] != "*" );
            let encoded: Vec<String> =
                parts.iter().map(|p| utf8_percent_encode(p, NON_ALPHANUMERIC).to_string()).collect();
            let path = format!("/write-metrics/namespaces/{}", encoded.join("/"));
            prop_assert_eq!(
                parsed(&path),
                (Some(parts[0].clone()), parts[1].clone(), parts[2].clone(), parts[3].clone())
            );
        }
    }
}
