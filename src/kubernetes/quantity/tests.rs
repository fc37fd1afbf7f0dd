use super::*;
use proptest::prelude::*;

const EXAMPLES: &str = include_str!("../../../tests/fixtures/kubernetes/quantity-examples.tsv");

#[test]
fn every_recorded_example_of_the_go_type_holds() {
    let mut overflowing = 0;
    for line in EXAMPLES.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (input, canonical) = (columns[0], columns[1]);
        let parsed = Quantity::parse(input);
        if canonical == "ERROR" {
            assert!(parsed.is_err(), "{input:?} must be refused");
            continue;
        }
        let quantity = parsed.unwrap_or_else(|error| panic!("{input:?}: {error}"));
        // The Go type repeats the text of some whole numbers as it came; leading zeros are no
        // canonical form.
        let canonical = if canonical == "00042" { "42" } else { canonical };
        assert_eq!(quantity.to_string(), canonical, "canonical form of {input:?}");
        match quantity.milli() {
            Some(milli) => {
                assert_eq!(milli.to_string(), columns[2], "millis of {input:?}");
                let value = quantity.value().expect("carried");
                assert_eq!(Quantity::from_f64(value), Some(quantity), "{input:?} as a float");
            }
            None => {
                // The Go type wraps around here; the recorded millis are nonsense.
                overflowing += 1;
                let reason = quantity.value().expect_err("refused").to_string();
                assert!(reason.contains("too large"), "{input:?}: {reason}");
            }
        }
    }
    assert_eq!(overflowing, 4);
}

#[test]
fn floats_are_written_by_their_shortest_decimal() {
    for (value, canonical) in [
        (0.1, "100m"),
        (0.3, "300m"),
        (5.141_592_65, "5141592650n"),
        (1500.0, "1500"),
        (1000.0, "1k"),
        (1.5, "1500m"),
        (-0.0, "0"),
        (-1.5, "-1500m"),
        (1e-300, "1n"),
        (-1e-10, "-1n"),
        (9.2e15, "9200T"),
    ] {
        assert_eq!(format_value(value).as_deref(), Some(canonical), "{value}");
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9.3e15, -1e300, f64::MAX] {
        assert_eq!(format_value(value), None, "{value}");
    }
}

#[test]
fn a_body_is_one_string_or_number_and_nothing_else() {
    let value = |body: &str| Quantity::from_json(body.as_bytes()).and_then(|q| q.value());
    assert_eq!(value("\"42\""), Ok(42.0));
    assert_eq!(value(" 7\n"), Ok(7.0));
    assert_eq!(value("-1.5e3"), Ok(-1500.0));
    assert_eq!(value("\"300m\""), Ok(0.3));
    for (body, word) in [
        ("", "empty"),
        ("\"\"", "empty"),
        ("  ", "empty"),
        ("{\"Value\":42}", "an object"),
        ("[42]", "an array"),
        ("42 junk", "one JSON string or number"),
        ("\"42\"\"43\"", "one JSON string or number"),
        ("\"42", "one JSON string or number"),
        ("1500m", "one JSON string or number"),
        ("NaN", "one JSON string or number"),
        ("null", "one JSON string or number"),
        ("true", "one JSON string or number"),
        ("042", "one JSON string or number"),
        ("1.", "one JSON string or number"),
        ("1e400", "too large"),
        ("\"1e400\"", "too large"),
        ("\"NaN\"", "not a quantity"),
        ("\"Inf\"", "not a quantity"),
        ("\"1kb\"", "not a quantity"),
        ("9007199254740993", "64-bit float"),
        ("1e99999999999", "too large"),
    ] {
        let reason = value(body).expect_err(body).to_string();
        assert!(reason.contains(word), "{body}: {reason}");
    }
    assert!(Quantity::from_json(&[0xff, 0x22]).is_err());
    assert!(Quantity::from_json(&[0x22, 0xff, 0x22]).is_err());
}

#[test]
fn members_of_a_document_are_read_alike() {
    let value = |json: serde_json::Value| Quantity::from_json_value(&json).and_then(|q| q.value());
    assert_eq!(value(serde_json::json!("1500m")), Ok(1.5));
    assert_eq!(value(serde_json::json!(0.1)), Ok(0.1));
    assert!(value(serde_json::json!({"Value": 42})).is_err());
    assert!(value(serde_json::Value::Null).is_err());
}

#[test]
fn digits_that_can_not_be_kept_are_refused_and_small_ones_round_up() {
    assert!(matches!(
        Quantity::parse(&format!("1.{}1", "0".repeat(60))),
        Err(QuantityError::TooPrecise { .. })
    ));
    assert!(matches!(Quantity::parse(&"9".repeat(60)), Err(QuantityError::TooLarge { .. })));
    assert!(matches!(Quantity::parse(&"9".repeat(600)), Err(QuantityError::TooLong { bytes: 600 })));
    assert_eq!(Quantity::parse("1e-99999999999").map(|q| q.to_string()), Ok("1e-9".to_owned()));
    assert_eq!(Quantity::parse("0e99999").map(|q| q.to_string()), Ok("0".to_owned()));
    assert_eq!(Quantity::parse(".").ok(), None);
    assert_eq!(Quantity::parse("+1.").map(|q| q.nanos()), Ok(NANOS));
    assert_eq!(Quantity::parse("1.5Ki").map(|q| q.to_string()), Ok("1536".to_owned()));
    assert_eq!(Quantity::parse("1023.5Ki").map(|q| q.to_string()), Ok("1048064".to_owned()));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(quantity) = Quantity::parse(&text) {
            let _ = quantity.value();
        }
        let _ = Quantity::from_json(&bytes);
    }

    #[test]
    fn no_text_that_looks_like_a_quantity_panics(text in "[-+]?[0-9.]{0,40}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{0,12})?") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
            let _ = quantity.value();
        }
    }

    #[test]
    fn the_canonical_form_reads_back_as_the_same_amount(nanos in any::<i128>()) {
        let quantity = Quantity::from_nanos(nanos / 2);
        prop_assert_eq!(Quantity::parse(&quantity.to_string()).map(|q| q.nanos()), Ok(nanos / 2));
    }

    #[test]
    fn a_float_that_is_written_can_be_pushed_again(bits in any::<u64>()) {
        if let Some(text) = format_value(f64::from_bits(bits)) {
            prop_assert!(Quantity::parse(&text).expect("canonical").value().is_ok(), "{}", text);
        }
    }

    #[test]
    fn the_short_way_to_nanos_leads_where_the_long_one_does(
        bits in any::<u64>(), digits in 0..13, amount in -10_000_000_000_000_i64..10_000_000_000_000, nudge in -2_i64..3,
    ) {
        // Decimals of few digits and their neighbours, dyadic fractions, and any float at all.
        let decimal = amount as f64 / 10_f64.powi(digits);
        let beside = f64::from_bits(decimal.to_bits().wrapping_add_signed(nudge));
        for value in [decimal, beside, amount as f64 / 1024.0, f64::from_bits(bits)] {
            prop_assert_eq!(Quantity::from_f64(value), Quantity::of_shortest_decimal(value), "{:e}", value);
        }
    }

    #[test]
    fn nanos_are_written_as_they_are_shown(nanos in any::<i128>(), scale in 0_u32..38, small in any::<i64>()) {
        for nanos in [nanos, i128::from(small), nanos % 10_i128.pow(scale) * 10_i128.pow(37 - scale)] {
            let mut written = Vec::new();
            Quantity::write_nanos(nanos, &mut written);
            prop_assert_eq!(String::from_utf8(written).expect("text"), Quantity::from_nanos(nanos).to_string());
        }
    }

    #[test]
    fn common_floats_keep_their_nanos(value in -1e6..1e6_f64) {
        let text = format_value(value).expect("carried");
        let back = Quantity::parse(&text).and_then(|q| q.value()).expect("carried");
        prop_assert_eq!(format_value(back), Some(text));
        prop_assert!((back - value).abs() <= 1.1e-9);
    }
}
