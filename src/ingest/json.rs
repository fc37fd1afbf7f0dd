//! Cuts JSON into its members or elements without reading them.
//!
//! A batch may hold a bad line among good ones, and a quantity must be read from its own digits, not
//! through a float. So arrays and objects are cut here into slices of the text, and what is in a slice
//! is read (and fully checked) by whoever knows what it should be.

use std::borrow::Cow;
use thiserror::Error;

/// Text that is not cut like JSON (RFC 8259).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JsonError {
    /// Something else stands where `expected` should.
    #[error("malformed JSON at byte {at}: expected {expected}")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
    /// More elements than the caller takes.
    #[error("there are more than {max} elements: send fewer at a time")]
    TooMany {
        /// The bound.
        max: usize,
    },
}

/// The elements of an array, as slices of its text.
///
/// # Errors
/// When the text is not one array, something stands behind it, or it has more than `max` elements.
pub fn array_elements(text: &[u8], max: usize) -> Result<Vec<&[u8]>, JsonError> {
    let mut cutter = Cutter { text, at: 0 };
    let mut elements = Vec::new();
    cutter.expect(b'[', "an array")?;
    if !cutter.take(b']') {
        loop {
            if elements.len() == max {
                return Err(JsonError::TooMany { max });
            }
            elements.push(cutter.value()?);
            if cutter.take(b']') {
                break;
            }
            cutter.expect(b',', "a comma or the end of the array")?;
        }
    }
    cutter.end("nothing behind the array")?;
    Ok(elements)
}

/// A member of an object: its name, and its value as a slice of the text.
pub type Member<'a> = (Cow<'a, str>, &'a [u8]);

/// The members of an object: each name and its value as a slice of the text.
///
/// # Errors
/// When the text is not one object, something stands behind it, or it has more than `max` members.
pub fn object_members(text: &[u8], max: usize) -> Result<Vec<Member<'_>>, JsonError> {
    let mut cutter = Cutter { text, at: 0 };
    let mut members = Vec::new();
    cutter.expect(b'{', "an object")?;
    if !cutter.take(b'}') {
        loop {
            if members.len() == max {
                return Err(JsonError::TooMany { max });
            }
            let name = cutter.name()?;
            cutter.expect(b':', "a colon")?;
            members.push((name, cutter.value()?));
            if cutter.take(b'}') {
                break;
            }
            cutter.expect(b',', "a comma or the end of the object")?;
        }
    }
    cutter.end("nothing behind the object")?;
    Ok(members)
}

struct Cutter<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cutter<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(JsonError::Expected { expected, at: self.at }) }
    }

    fn end(&mut self, expected: &'static str) -> Result<(), JsonError> {
        self.skip_space();
        if self.peek().is_none() { Ok(()) } else { Err(JsonError::Expected { expected, at: self.at }) }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, JsonError> {
        const EXPECTED: &str = "a name in double quotes";
        self.skip_space();
        let at = self.at;
        if self.peek() != Some(b'"') {
            return Err(JsonError::Expected { expected: EXPECTED, at });
        }
        let text = self.value()?;
        match serde_json::from_slice::<&str>(text) {
            Ok(name) => Ok(Cow::Borrowed(name)),
            Err(_) => serde_json::from_slice(text)
                .map(Cow::Owned)
                .map_err(|_| JsonError::Expected { expected: EXPECTED, at }),
        }
    }

    /// One value, whatever it is: its brackets are only counted.
    fn value(&mut self) -> Result<&'a [u8], JsonError> {
        self.skip_space();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b'}' | b']' => break,
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => break,
                _ => self.at += 1,
            }
        }
        match self.text.get(start..self.at) {
            Some(value) if !value.is_empty() && depth == 0 => Ok(value),
            _ => Err(JsonError::Expected { expected: "a value", at: self.at }),
        }
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return Ok(());
            }
        }
        self.at = self.text.len();
        Err(JsonError::Expected { expected: "the end of a string", at: self.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_and_objects_are_cut_where_json_does() {
        let text = br#" [ {"a":[1,{"b":"]},\""}]} ,2, "x" ] "#;
        let elements = array_elements(text, 9).expect("cut");
        assert_eq!(elements, [&br#"{"a":[1,{"b":"]},\""}]}"#[..], b"2", br#""x""#]);
        assert_eq!(array_elements(b"[ ]", 9), Ok(vec![]));
        let members = object_members(br#"{"a":1e400,"\u00e4":{"x":[]}}"#, 9).expect("cut");
        assert_eq!(members, [("a".into(), &b"1e400"[..]), ("ä".into(), br#"{"x":[]}"#)]);
    }

    #[test]
    fn what_is_cut_otherwise_is_refused() {
        for text in [
            "",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1] 2",
            "[\"",
            "[\"\\",
            "[{]",
            "[}",
            "{}",
            "[1,2,3,4]",
        ] {
            assert!(array_elements(text.as_bytes(), 3).is_err(), "{text}");
        }
        for text in [
            "{",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\" \"b\":1}",
            "[]",
            "{\"\n\":1}",
        ] {
            assert!(object_members(text.as_bytes(), 3).is_err(), "{text}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = array_elements(&text, 9);
            let _ = object_members(&text, 9);
        }

        #[test]
        fn no_near_json_panics(text in r#"[\[{][\[\]{}",:\\ a1]{0,30}"#) {
            let _ = array_elements(text.as_bytes(), 9);
            let _ = object_members(text.as_bytes(), 9);
        }

        #[test]
        fn slices_are_the_values(values in proptest::collection::vec(json(), 0..6), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&values) } else { serde_json::to_vec(&values) };
            let text = text.expect("written");
            let read: Vec<serde_json::Value> = array_elements(&text, 9)
                .expect("cut")
                .into_iter()
                .map(|slice| serde_json::from_slice(slice).expect("a value"))
                .collect();
            prop_assert_eq!(read, values);
        }
    }
}
