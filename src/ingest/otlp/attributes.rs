//! Attributes as text, bounded in number.

/// Most attributes of one set that are kept: more than a series may have labels.
pub const ATTRIBUTES_MAX: usize = 256;

/// Longest value of an attribute that is no text (a list, a map), in bytes as sent; a label's value can't
/// be longer.
pub const COMPOUND_BYTES_MAX: usize = 4_096;

/// How deep lists and maps may stand in each other.
pub const DEPTH_MAX: usize = 8;

/// A set of attributes; values that are no text are written as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pairs: Vec<(String, String)>,
    left_out: usize,
}

impl Attributes {
    /// Adds one; past [`ATTRIBUTES_MAX`] they are only counted.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        if self.pairs.len() < ATTRIBUTES_MAX {
            self.pairs.push((key.into(), value.into()));
        } else {
            self.left_out += 1;
        }
    }

    /// Those that are kept, in the order in which they came.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// How many are not.
    #[must_use]
    pub const fn left_out(&self) -> usize {
        self.left_out
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}
