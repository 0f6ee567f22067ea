use proptest::prelude::*;

use super::*;

#[test]
#[rustfmt::skip]
fn canonical_forms() {
    check("0", Ok("0"));
    check("00", Ok("0"));
    check("0.0", Ok("0"));
    check("1", Ok("1"));
    check("0.5", Ok("500m"));
    check("0.1", Ok("100m"));
    check("1.5Gi", Ok("1536Mi"));
    check("1024Mi", Ok("1Gi"));
    check("1000Mi", Ok("1000Mi"));
    check("1024Ki", Ok("1Mi"));
    check("1Ki", Ok("1Ki"));
    check("0.5Ki", Ok("512"));
    check("1000", Ok("1k"));
    check("1000000", Ok("1M"));
    check("128974848", Ok("128974848"));
    check("1.0", Ok("1"));
    check("1e3", Ok("1e3"));
    check("1e4", Ok("10e3"));
    check("2E0", Ok("2E0"));
    check("100u", Ok("100u"));
    check("1e-12", Ok("1e-9"));            // rounded up to a billionth
    check("0.0000000001", Ok("1n"));
    check("-1", Ok("-1"));
    check("-0.5", Ok("-500m"));
    check("+5", Ok("+5"));
    check("1.500", Ok("1.500"));           // upstream takes it as canonical
    check("0.1Gi", Ok("107374182400m"));
    check("100E", Ok("100E"));
    check("9Ei", Ok("9223372036854775807")); // capped
    check(" 5Mi ", Ok("5Mi"));
    check("", Err(QuantityError::Format));
    check("1x", Err(QuantityError::Format));
    check("one", Err(QuantityError::Format));
    check("1.2.3", Err(QuantityError::Format));
    check("1KI", Err(QuantityError::Format));
    check("0x10", Err(QuantityError::Format));
    check("1ee3", Err(QuantityError::Suffix));
    check("1mi", Err(QuantityError::Suffix));
    #[track_caller]
    fn check(text: &str, expected: Result<&str, QuantityError>) {
        assert_eq!(canonical(text).as_deref().map_err(|err| *err), expected, "{text:?}");
    }
}

#[test]
#[rustfmt::skip]
fn values_are_rounded_up() {
    //    text     value  milli
    check("1500m", 2,     1500);
    check("100u",  1,     1);
    check("-1500m", -2,   -1500);
    check("2",     2,     2000);
    check("1Ki",   1024,  1_024_000);
    check("1e300", i64::MAX, i64::MAX);
    #[track_caller]
    fn check(text: &str, value: i64, milli: i64) {
        let quantity = Quantity::parse(text).unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (value, milli));
    }
}

#[test]
fn arithmetic_keeps_the_format() {
    let mut sum = Quantity::ZERO;
    sum.add(&Quantity::parse("512Mi").unwrap());
    sum.add(&Quantity::parse("0.5Gi").unwrap());
    assert_eq!(sum.to_string(), "1Gi");
    sum.sub(&Quantity::parse("1Gi").unwrap());
    assert!(sum.is_zero());
    let mut cpu = Quantity::parse("1500u").unwrap();
    cpu.round_up(-3);
    assert_eq!(cpu.to_string(), "2m");
}

#[test]
fn comparison_is_by_value() {
    let sorted = ["-1k", "-1", "0", "1n", "1m", "1", "1.000001", "1k", "1Ki", "1e300"];
    let quantities: Vec<_> = sorted.iter().map(|text| Quantity::parse(text).unwrap()).collect();
    assert!(quantities.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(Quantity::parse("1000m").unwrap(), Quantity::parse("1").unwrap());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let written = quantity.to_string();
            if let Ok(again) = Quantity::parse(&written) {
                prop_assert!(again.to_string() == written);
            }
            let _ = quantity.milli_value();
            let _ = quantity.cmp(&Quantity::new(7, Format::DecimalSi));
        }
    }
}
