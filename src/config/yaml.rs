//! YAML files of settings: one bound on their size, and errors that tell where.

use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::path::Path;

/// Largest file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text of the file at `path`, or `None` where it is larger than [`FILE_BYTES_MAX`].
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    let bytes = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok((bytes as u64 <= FILE_BYTES_MAX).then_some(text))
}

/// What `text` says. A file of comments only says nothing: the default.
///
/// # Errors
/// What is wrong, with its line and column.
pub(super) fn parse<T: DeserializeOwned + Default>(text: &str) -> Result<T, String> {
    let file: Option<T> = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let said = error.to_string();
        match error.location() {
            Some(at) if !said.contains("line ") => {
                format!("line {} column {}: {said}", at.line(), at.column())
            }
            _ => said,
        }
    })?;
    Ok(file.unwrap_or_default())
}
