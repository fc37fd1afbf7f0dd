//! Small things about texts from outside.

use percent_encoding::percent_decode_str;

/// The beginning of a text, short enough for an error message.
#[must_use]
pub fn start_of(text: &str) -> String {
    first_chars(text, 64)
}

/// So many characters of a text, or all of it.
#[must_use]
pub fn first_chars(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// A name or value of a query string or a form, with `+` and percent signs resolved; `None`: it is
/// not UTF-8 then.
#[must_use]
pub fn decode_form(part: &str) -> Option<String> {
    let spaced = part.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_form_is_resolved_once() {
        for (part, text) in [("a+b%20c%2Bd", Some("a b c+d")), ("%zz%", Some("%zz%")), ("%ff", None)] {
            assert_eq!(decode_form(part).as_deref(), text, "{part}");
        }
    }
}
