//! Repeated numbers of protobuf messages: packed in one field, or one field each.

use crate::protobuf::{Field, Fields, ProtobufError, Wire};

/// Hands each number of a repeated `uint32`, `uint64` or enum to `each`.
///
/// # Errors
/// When the field holds something else, or ends within a number.
pub fn varints(field: Field<'_>, mut each: impl FnMut(u64)) -> Result<(), ProtobufError> {
    match field.wire {
        Wire::Varint(number) => each(number),
        Wire::Bytes(bytes) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                let (number, behind) = varint(rest)?;
                each(number);
                rest = behind;
            }
        }
        _ => return Err(ProtobufError::Mismatch(field.number)),
    }
    Ok(())
}

/// Hands each number of a repeated `fixed64`, `sfixed64` or `double`, as its bits, to `each`.
///
/// # Errors
/// When the field holds something else, or ends within a number.
pub fn fixed64s(field: Field<'_>, mut each: impl FnMut(u64)) -> Result<(), ProtobufError> {
    match field.wire {
        Wire::Fixed64(bytes) => each(u64::from_le_bytes(bytes)),
        Wire::Bytes(bytes) => {
            let (numbers, rest) = bytes.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(ProtobufError::CutShort);
            }
            numbers.iter().for_each(|number| each(u64::from_le_bytes(*number)));
        }
        _ => return Err(ProtobufError::Mismatch(field.number)),
    }
    Ok(())
}

/// The `fixed64` that a field holds, or the bits of its `double`.
///
/// # Errors
/// When it holds something else.
pub fn fixed64(field: Field<'_>) -> Result<u64, ProtobufError> {
    match field.wire {
        Wire::Fixed64(bytes) => Ok(u64::from_le_bytes(bytes)),
        _ => Err(ProtobufError::Mismatch(field.number)),
    }
}

/// The `uint32`, `uint64`, `bool` or enum that a field holds.
///
/// # Errors
/// When it holds something else.
pub fn uint64(field: Field<'_>) -> Result<u64, ProtobufError> {
    match field.wire {
        Wire::Varint(number) => Ok(number),
        _ => Err(ProtobufError::Mismatch(field.number)),
    }
}

/// Calls `each` for each field of a message.
///
/// # Errors
/// When the bytes are no message, or `each` says so.
pub fn each_field<'a, E: From<ProtobufError>>(
    message: &'a [u8],
    mut each: impl FnMut(Field<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next_field()? {
        each(field)?;
    }
    Ok(())
}

/// The number at the beginning of some bytes, and what is behind it.
///
/// # Errors
/// When it ends within, or has more than 64 bits.
pub fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), ProtobufError> {
    let mut number = 0_u64;
    let mut rest = bytes;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(ProtobufError::CutShort)?;
        rest = behind;
        if shift == 63 && *byte > 1 {
            return Err(ProtobufError::Varint);
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((number, rest));
        }
    }
    Err(ProtobufError::Varint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_through_packed_and_one_by_one(numbers in proptest::collection::vec(any::<u64>(), 0..9)) {
            let (mut packed, mut single, mut fixed) = (Vec::new(), Vec::new(), Vec::new());
            prost::encoding::uint64::encode_packed(1, &numbers, &mut packed);
            prost::encoding::uint64::encode_repeated(1, &numbers, &mut single);
            prost::encoding::fixed64::encode_packed(1, &numbers, &mut fixed);
            for message in [&packed, &single] {
                let mut read = Vec::new();
                each_field(message, |field| varints(field, |n| read.push(n))).expect("read");
                prop_assert_eq!(&read, &numbers);
            }
            let mut read = Vec::new();
            each_field(&fixed, |field| fixed64s(field, |n| read.push(n))).expect("read");
            prop_assert_eq!(&read, &numbers);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let field = Field { number: 1, wire: Wire::Bytes(&bytes) };
            let _ = varints(field, |_| ());
            let _ = fixed64s(field, |_| ());
        }
    }
}
