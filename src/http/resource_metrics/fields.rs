//! `fieldSelector`, of the fields that metrics-server knows: `metadata.name` and `metadata.namespace`.
//!
//! ```text
//! selector = [ term *( "," term ) ]      term = field ( "=" | "==" | "!=" ) value
//! ```

use crate::text::start_of;
use thiserror::Error;

/// Longest selector that is looked at, in bytes.
const BYTES_MAX: usize = 4_096;

/// A field selector that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("fieldSelector: {0}")]
pub struct FieldSelectorError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

/// Selects objects by name and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(Field, bool, String)>);

impl FieldSelector {
    /// Reads a selector; an empty one selects everything.
    ///
    /// # Errors
    /// When it is none, or of another field.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        if text.len() > BYTES_MAX {
            return Err(FieldSelectorError(format!("{} bytes are more than {BYTES_MAX}", text.len())));
        }
        text.split(',').filter(|term| !term.is_empty()).map(term).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an object is selected; the namespace of what lies in none is empty.
    #[must_use]
    pub fn selects(&self, namespace: &str, name: &str) -> bool {
        self.0.iter().all(|(field, is_equal, value)| {
            let of_object = if *field == Field::Name { name } else { namespace };
            (of_object == value) == *is_equal
        })
    }
}

fn term(text: &str) -> Result<(Field, bool, String), FieldSelectorError> {
    let no_term = || {
        FieldSelectorError(format!("{:?} is no term: write metadata.name=NAME, or != for =", start_of(text)))
    };
    let (field, value) = text.split_once('=').ok_or_else(no_term)?;
    let (field, is_equal) = field.strip_suffix('!').map_or((field, true), |field| (field, false));
    let value = if is_equal { value.strip_prefix('=').unwrap_or(value) } else { value };
    // Neither names nor namespaces have any of these, plain or escaped.
    if value.contains(['=', '!', '\\']) {
        return Err(no_term());
    }
    let field = match field.trim() {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => {
            let other = start_of(other);
            return Err(FieldSelectorError(format!(
                "there is nothing to select by {other:?}: use metadata.name or metadata.namespace"
            )));
        }
    };
    Ok((field, is_equal, value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_namespaces_are_selected() {
        for (text, expected) in [
            ("", true),
            ("metadata.name=web-0", true),
            ("metadata.name==web-0,metadata.namespace=shop", true),
            ("metadata.namespace!=shop", false),
            ("metadata.name!=web-1", true),
            ("metadata.name=web-0,metadata.name!=web-0", false),
            ("metadata.name=", false),
        ] {
            assert_eq!(FieldSelector::parse(text).expect(text).selects("shop", "web-0"), expected, "{text}");
        }
        for (text, why) in [
            ("status.phase=Running", "use metadata.name"),
            ("metadata.name", "is no term"),
            ("metadata.name=a=b", "is no term"),
            (&"a".repeat(5_000), "5000 bytes"),
        ] {
            let error = FieldSelector::parse(text).expect_err(text).to_string();
            assert!(error.starts_with("fieldSelector: ") && error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z.=!,\\\\ ]{0,60}") {
            if let Ok(selector) = FieldSelector::parse(&text) {
                let _ = selector.selects("a", "b");
            }
        }
    }
}
