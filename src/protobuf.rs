//! Reads protobuf messages field by field, borrowing from their bytes.
//!
//! A decoder that builds the whole message can be made to take dozens of times its size in memory by
//! many empty submessages; this one takes none, so the caller decides what is kept.
//! The wire format is specified at <https://protobuf.dev/programming-guides/encoding/>.

use thiserror::Error;

/// Bytes that are no protobuf message of the expected shape.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtobufError {
    /// They end within a field.
    #[error("the message ends within a field")]
    CutShort,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    Varint,
    /// A field that has no number, or one too large.
    #[error("{0} is no field number")]
    FieldNumber(u64),
    /// A wire type that does not exist, or a group.
    #[error("wire type {0} is not one that a message uses")]
    WireType(u64),
    /// A known field of another wire type.
    #[error("field {0} has the wrong wire type")]
    Mismatch(u32),
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// A number of up to 64 bits.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64([u8; 8]),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes, little-endian.
    Fixed32([u8; 4]),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub wire: Wire<'a>,
}

impl<'a> Field<'a> {
    /// The bytes it holds.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn bytes(self) -> Result<&'a [u8], ProtobufError> {
        match self.wire {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Mismatch(self.number)),
        }
    }

    /// The `double` it holds.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn double(self) -> Result<f64, ProtobufError> {
        match self.wire {
            Wire::Fixed64(bytes) => Ok(f64::from_le_bytes(bytes)),
            _ => Err(ProtobufError::Mismatch(self.number)),
        }
    }

    /// The `int64` it holds.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn int64(self) -> Result<i64, ProtobufError> {
        match self.wire {
            Wire::Varint(number) => Ok(number.cast_signed()),
            _ => Err(ProtobufError::Mismatch(self.number)),
        }
    }
}

/// The fields of a message, in the order in which they stand.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of the message in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no message. What comes behind is then meaningless.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(ProtobufError::FieldNumber(key >> 3))?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::CutShort)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::CutShort)?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(self.array()?),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Some(Field { number, wire }))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        // Keys and lengths are nearly all of one byte.
        match self.rest.split_first() {
            Some((byte, rest)) if byte & 0x80 == 0 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtobufError::CutShort)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(ProtobufError::Varint);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Varint)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ProtobufError::CutShort)?;
        self.rest = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_messages_are_refused_by_kind() {
        let error = |bytes: &[u8]| {
            let mut fields = Fields::new(bytes);
            loop {
                match fields.next_field() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        };
        assert_eq!(error(&[]), None);
        assert_eq!(error(&[0x08, 0x01]), None);
        assert_eq!(error(&[0x08]), Some(ProtobufError::CutShort));
        assert_eq!(error(&[0x0a, 0x05, 0x01]), Some(ProtobufError::CutShort));
        assert_eq!(error(&[0x09, 0x05, 0x01]), Some(ProtobufError::CutShort));
        assert_eq!(error(&[0x00, 0x01]), Some(ProtobufError::FieldNumber(0)));
        assert_eq!(error(&[0x0b]), Some(ProtobufError::WireType(3)));
        let mut long = vec![0x08];
        long.extend([0xff; 10]);
        assert_eq!(error(&long), Some(ProtobufError::Varint));
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(error(&huge), Some(ProtobufError::CutShort));
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_prost_writes_them(number in any::<u64>(), tag in 1_u32..(1 << 29)) {
            let mut bytes = Vec::new();
            prost::encoding::uint64::encode(tag, &number, &mut bytes);
            let field = Fields::new(&bytes).next_field();
            prop_assert_eq!(field, Ok(Some(Field { number: tag, wire: Wire::Varint(number) })));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(_)) = fields.next_field() {}
        }
    }
}
