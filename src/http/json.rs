//! Texts in JSON that is written by hand.

/// Appends a text as a string of JSON.
pub(super) fn push_string(text: &str, json: &mut String) {
    // Without a way out of the loop, so that it looks at many bytes at once.
    let needs_escapes =
        text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if needs_escapes {
        json.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    json.push('"');
    json.push_str(text);
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_is_read_back(text in "\\PC*|.*|[\u{0}-\u{ff}]*") {
            let mut written = String::new();
            push_string(&text, &mut written);
            let read: String = serde_json::from_str(&written).expect("JSON");
            prop_assert_eq!(read, text);
        }
    }
}
