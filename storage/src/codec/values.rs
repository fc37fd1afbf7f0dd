//! A column of values.

use super::decimal::{self, Scaled};
use super::quantile::{self, LEVEL_QUICK, LEVEL_THOROUGH};
use super::{Effort, packed, unzigzag, xor, zigzag};
use crate::bytes::Reader;

/// How a column of values is written: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ValueCodec {
    /// Eight bytes each, little-endian.
    Raw = 0,
    /// Quantile compression of the f64s.
    Pco = 1,
    /// Decimal scaling, then quantile compression of the whole numbers.
    DecimalPco = 2,
    /// Decimal scaling, then frame of reference.
    DecimalPacked = 3,
    /// Decimal scaling, then differences of neighbours in frame of reference.
    DecimalDeltaPacked = 4,
    /// XOR of neighbours.
    Xor = 5,
    /// One value, which all are.
    Constant = 6,
}

impl ValueCodec {
    /// All of them.
    const ALL: [Self; 7] = [
        Self::Raw,
        Self::Pco,
        Self::DecimalPco,
        Self::DecimalPacked,
        Self::DecimalDeltaPacked,
        Self::Xor,
        Self::Constant,
    ];

    /// That of a column's first byte.
    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| *codec as u8 == byte)
    }
}

/// What FORMAT.md calls the codec of a column's first byte.
pub(crate) fn value_codec_name(byte: u8) -> Option<&'static str> {
    ValueCodec::of(byte).map(|codec| match codec {
        ValueCodec::Raw => "raw",
        ValueCodec::Pco => "pco",
        ValueCodec::DecimalPco => "decimal, pco",
        ValueCodec::DecimalPacked => "decimal, packed",
        ValueCodec::DecimalDeltaPacked => "decimal, differences packed",
        ValueCodec::Xor => "XOR",
        ValueCodec::Constant => "constant",
    })
}

/// Columns shorter than this have nothing for quantile compression to learn from.
const LEARNABLE_MIN: usize = 32;
/// Of longer columns a part of this length decides between codecs that take long.
const PROBE: usize = 768;

/// Appends values, the codec's byte first.
pub(crate) fn encode_values(values: &[f64], effort: Effort, bytes: &mut Vec<u8>) {
    let (codec, column) = smallest(values, effort);
    bytes.push(codec as u8);
    bytes.extend_from_slice(&column);
}

fn smallest(values: &[f64], effort: Effort) -> (ValueCodec, Vec<u8>) {
    if let Some(first) = values.first()
        && values.iter().all(|value| value.to_bits() == first.to_bits())
    {
        return (ValueCodec::Constant, first.to_le_bytes().to_vec());
    }
    let scaled = decimal::scale(values);
    let mut candidates = Vec::with_capacity(4);
    if let Some(scaled) = &scaled {
        candidates.push(packed_smaller(scaled));
    }
    if values.len() >= LEARNABLE_MIN {
        match (effort, &scaled) {
            (Effort::Least, _) | (Effort::Quick, Some(_)) => {}
            (Effort::Quick, None) => candidates.extend(pco(values, LEVEL_QUICK)),
            (Effort::Thorough, None) => candidates.extend(pco(values, LEVEL_THOROUGH)),
            (Effort::Thorough, Some(scaled)) => thorough(values, scaled, &mut candidates),
        }
    }
    if candidates.is_empty() || values.len() < LEARNABLE_MIN {
        candidates.push((ValueCodec::Xor, xor::encode(values)));
    }
    let best = candidates.into_iter().min_by_key(|(_, column)| column.len());
    match best {
        Some((codec, column)) if column.len() < values.len() * 8 => (codec, column),
        _ => (ValueCodec::Raw, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

/// Adds what quantile compression makes of the values, or of the scaled numbers: both where the column
/// is short, else that which a part of it speaks for.
fn thorough(values: &[f64], scaled: &Scaled, candidates: &mut Vec<(ValueCodec, Vec<u8>)>) {
    let probe = |len: usize| len.saturating_sub(PROBE) / 2..len.min(len.saturating_sub(PROBE) / 2 + PROBE);
    let (mut as_floats, mut as_wholes) = (true, true);
    if values.len() > 2 * PROBE {
        let range = probe(values.len());
        let size = |column: Option<Vec<u8>>| column.map_or(usize::MAX, |column| column.len());
        let floats = size(values.get(range.clone()).and_then(|part| quantile::encode(part, LEVEL_THOROUGH)));
        let wholes = size(scaled.numbers.get(range).and_then(|part| quantile::encode(part, LEVEL_THOROUGH)));
        as_floats = floats < wholes;
        as_wholes = !as_floats;
    }
    if as_floats {
        candidates.extend(pco(values, LEVEL_THOROUGH));
    }
    if as_wholes && let Some(column) = quantile::encode(&scaled.numbers, LEVEL_THOROUGH) {
        let mut bytes = Vec::with_capacity(column.len() + 24);
        scaled.put_header(&mut bytes);
        bytes.extend_from_slice(&column);
        candidates.push((ValueCodec::DecimalPco, bytes));
    }
}

fn pco(values: &[f64], level: usize) -> Option<(ValueCodec, Vec<u8>)> {
    quantile::encode(values, level).map(|column| (ValueCodec::Pco, column))
}

/// The scaled numbers in frame of reference: themselves or their differences.
fn packed_smaller(scaled: &Scaled) -> (ValueCodec, Vec<u8>) {
    let mut previous = 0;
    let differences: Vec<u64> = scaled
        .numbers
        .iter()
        .map(|number| zigzag(number.wrapping_sub(std::mem::replace(&mut previous, *number)) as i64))
        .collect();
    let (codec, numbers) = if packed::size(&differences) < packed::size(&scaled.numbers) {
        (ValueCodec::DecimalDeltaPacked, &differences)
    } else {
        (ValueCodec::DecimalPacked, &scaled.numbers)
    };
    let mut bytes = Vec::with_capacity(numbers.len() * 3 + 24);
    scaled.put_header(&mut bytes);
    packed::encode(numbers, &mut bytes);
    (codec, bytes)
}

/// Takes [`encode_values`] back: `count` values, which are all that the bytes hold.
pub(crate) fn decode_values(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    decode(bytes, count, None)
}

/// Those at these places, which rise, of the `count` values of a column.
pub(crate) fn decode_values_at(bytes: &[u8], count: usize, places: &[usize]) -> Option<Vec<f64>> {
    decode(bytes, count, Some(places))
}

fn decode(bytes: &[u8], count: usize, places: Option<&[usize]>) -> Option<Vec<f64>> {
    let picked = |values: Vec<f64>| match places {
        Some(places) => places.iter().map(|place| values.get(*place).copied()).collect(),
        None => Some(values),
    };
    let unscaled = |scaled: &Scaled, numbers: Vec<u64>| match places {
        Some(places) => scaled.values_at(&numbers, places),
        None => scaled.values(numbers),
    };
    let (codec, column) = bytes.split_first()?;
    match ValueCodec::of(*codec)? {
        ValueCodec::Raw => {
            let (words, rest) = column.as_chunks::<8>();
            let whole = rest.is_empty() && words.len() == count;
            picked(whole.then(|| words.iter().map(|word| f64::from_le_bytes(*word)).collect())?)
        }
        ValueCodec::Constant => {
            let value = f64::from_le_bytes(column.try_into().ok()?);
            Some(vec![value; places.map_or(count, <[usize]>::len)])
        }
        ValueCodec::Xor => picked(xor::decode(column, count)?),
        ValueCodec::Pco => picked(quantile::decode(column, count)?),
        ValueCodec::DecimalPco => {
            let mut reader = Reader::new(column);
            let scaled = Scaled::read_header(&mut reader, count)?;
            unscaled(&scaled, quantile::decode::<u64>(reader.rest(), count)?)
        }
        packed @ (ValueCodec::DecimalPacked | ValueCodec::DecimalDeltaPacked) => {
            let mut reader = Reader::new(column);
            let scaled = Scaled::read_header(&mut reader, count)?;
            let mut numbers = packed::decode(&mut reader, count)?;
            if packed == ValueCodec::DecimalDeltaPacked {
                let mut sum = 0u64;
                for number in &mut numbers {
                    sum = sum.wrapping_add(unzigzag(*number) as u64);
                    *number = sum;
                }
            }
            reader.rest().is_empty().then(|| unscaled(&scaled, numbers)).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn codec_of(values: &[f64], effort: Effort) -> (ValueCodec, usize) {
        let mut bytes = Vec::new();
        encode_values(values, effort, &mut bytes);
        let back = decode_values(&bytes, values.len()).expect("decodes");
        let places: Vec<usize> = (0..values.len()).filter(|place| place % 3 != 1).collect();
        let some = decode_values_at(&bytes, values.len(), &places).expect("decodes");
        assert!(some.iter().zip(&places).all(|(value, place)| value.to_bits() == back[*place].to_bits()));
        assert_eq!(some.len(), places.len());
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        (ValueCodec::of(bytes[0]).expect("known"), bytes.len())
    }

    /// Numbers without a pattern, but the same each time.
    fn noise(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(i | 1) >> 40)
    }

    #[test]
    fn each_shape_gets_the_codec_that_suits_it() {
        use Effort::{Quick, Thorough};
        assert_eq!(codec_of(&[7.5; 500], Quick), (ValueCodec::Constant, 9));
        let pages: Vec<f64> = noise(2_000).map(|n| ((n % 900) * 4_096) as f64).collect();
        let (codec, bytes) = codec_of(&pages, Quick);
        assert!(codec == ValueCodec::DecimalPacked && bytes < 2_700, "{codec:?} {bytes}");
        let (codec, bytes) = codec_of(&pages, Thorough);
        assert!(codec == ValueCodec::DecimalPco && bytes < 2_600, "{codec:?} {bytes}");
        let ramp: Vec<f64> = noise(2_000)
            .scan(0, |sum, n| {
                Some({
                    *sum += n % 4;
                    *sum as f64 / 100.0
                })
            })
            .collect();
        let (codec, bytes) = codec_of(&ramp, Quick);
        assert!(codec == ValueCodec::DecimalDeltaPacked && bytes < 900, "{codec:?} {bytes}");
        let thirtieths: Vec<f64> = noise(2_000).map(|n| (n % 500) as f64 / 30.0).collect();
        let (codec, bytes) = codec_of(&thirtieths, Thorough);
        assert!(codec == ValueCodec::Pco && bytes < 3_000, "{codec:?} {bytes}");
        let random: Vec<f64> =
            noise(2_000).map(|n| f64::from_bits(n.wrapping_mul(0xd134_2543_de82_ef95))).collect();
        assert_eq!(codec_of(&random, Thorough).0, ValueCodec::Raw);
        assert_eq!(codec_of(&[1.0, std::f64::consts::PI], Quick).0, ValueCodec::Raw);
        assert_eq!(codec_of(&[std::f64::consts::PI, 1.0, 1.0, 1.0, 1.0], Quick).0, ValueCodec::Xor);
    }

    #[test]
    fn a_staleness_marker_does_not_spoil_its_chunk() {
        let mut values: Vec<f64> = noise(1_000).map(|n| (n % 100) as f64).collect();
        let (_, before) = codec_of(&values, Effort::Thorough);
        values[500] = f64::from_bits(crate::sample::STALENESS_MARKER_BITS);
        values[700] = -0.0;
        values[701] = f64::INFINITY;
        let (codec, after) = codec_of(&values, Effort::Thorough);
        assert!(codec == ValueCodec::DecimalPco && after < before + 60, "{codec:?} {before} {after}");
    }

    /// Bit patterns of every kind that f64 has, and decimal values.
    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (any::<i32>(), 0usize..10).prop_map(|(n, e)| f64::from(n) / 10f64.powi(e as i32)),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)],
            1 => any::<u64>().prop_map(|payload| f64::from_bits(0x7ff0_0000_0000_0000 | payload >> 12)),
            1 => any::<u64>().prop_map(|subnormal| f64::from_bits(subnormal >> 12)),
        ]
    }

    proptest! {
        #[test]
        fn any_values_come_back_bit_for_bit(values in proptest::collection::vec(any_value(), 1..300)) {
            codec_of(&values, Effort::Least);
            codec_of(&values, Effort::Quick);
            codec_of(&values, Effort::Thorough);
        }

        #[test]
        fn decimal_values_come_back_bit_for_bit(
            wholes in proptest::collection::vec(-1_000_000i64..1_000_000, 1..300), digits in 0i32..12
        ) {
            let values: Vec<f64> = wholes.iter().map(|whole| *whole as f64 / 10f64.powi(digits)).collect();
            codec_of(&values, Effort::Least);
            codec_of(&values, Effort::Quick);
            codec_of(&values, Effort::Thorough);
        }

        #[test]
        fn every_codec_takes_any_bytes(codec in 0u8..9, body in proptest::collection::vec(any::<u8>(), 0..300), count in 0usize..500) {
            let bytes = [&[codec], body.as_slice()].concat();
            let values = decode_values(&bytes, count);
            prop_assert!(values.as_ref().is_none_or(|values| values.len() == count));
            // Those at some places are taken or refused as all are.
            let places: Vec<usize> = (0..count).step_by(3).collect();
            let bits = |value: &f64| value.to_bits();
            let some: Option<Vec<u64>> =
                decode_values_at(&bytes, count, &places).map(|some| some.iter().map(bits).collect());
            let of_all = values.map(|values| values.iter().step_by(3).map(bits).collect());
            prop_assert_eq!(some, of_all);
        }
    }
}
