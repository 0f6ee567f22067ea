use super::*;

#[test]
#[rustfmt::skip]
fn times() {
    check("2024-02-29T12:30:45Z",          Ok("2024-02-29T12:30:45Z"));
    check("2024-02-29T12:30:45.999Z",      Ok("2024-02-29T12:30:45Z"));
    check("2024-03-01T01:30:00+02:00",     Ok("2024-02-29T23:30:00Z"));
    check("2024-03-01T1:30:00Z",           Ok("2024-03-01T01:30:00Z"));
    check("0001-01-01T00:00:00Z",          Ok("0001-01-01T00:00:00Z"));
    check("",                              Err(r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#));
    check("yesterday",                     Err(r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#));
    check("2024-02-30T00:00:00Z",          Err(r#"parsing time "2024-02-30T00:00:00Z": day out of range"#));
    check("2024-13-01T00:00:00Z",          Err(r#"parsing time "2024-13-01T00:00:00Z": month out of range"#));
    check("2024-02-01 00:00:00Z",          Err(r#"parsing time "2024-02-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#));
    check("2024-02-01T00:00:00",           Err(r#"parsing time "2024-02-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#));
    check("2024-02-01T00:00:00Zz",         Err(r#"parsing time "2024-02-01T00:00:00Zz": extra text: "z""#));
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = parse(text).map(seconds).map_err(|err| err.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }
}

#[test]
fn micro_times_keep_six_digits() {
    let time = parse_micros("2024-02-29T12:30:45.123456Z").unwrap();
    assert_eq!(micros(time), "2024-02-29T12:30:45.123456Z");
    assert!(parse_micros("2024-02-29T12:30:45Z").is_err());
    assert_eq!(canonical("2024-02-29T12:30:45Z").unwrap(), None);
}

#[test]
#[rustfmt::skip]
fn durations() {
    check("0",          Ok("0s"));
    check("1h",         Ok("1h0m0s"));
    check("1.5h",       Ok("1h30m0s"));
    check("-90s",       Ok("-1m30s"));
    check("100ms",      Ok("100ms"));
    check("1500us",     Ok("1.5ms"));
    check("1s500ms",    Ok("1.5s"));
    check("",           Err(r#"time: invalid duration """#));
    check("3",          Err(r#"time: missing unit in duration "3""#));
    check("3x",         Err(r#"time: unknown unit "x" in duration "3x""#));
    check(".s",         Err(r#"time: invalid duration ".s""#));
    check("9999999999h", Err(r#"time: invalid duration "9999999999h""#));
    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = parse_duration(text).map(format_duration).map_err(|err| err.to_string());
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }
}
