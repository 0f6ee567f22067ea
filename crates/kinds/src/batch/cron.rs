//! Schedules: five fields as in crontab(5), or a descriptor such as `@hourly`; faults in the words of the parser that the
//! reference server uses.

/// What is wrong with a schedule.
pub(super) fn fault(schedule: &str) -> Option<String> {
    if schedule.is_empty() {
        return Some("empty spec string".into());
    }
    let mut rest = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let space = schedule.find(' ').unwrap_or(schedule.len());
        let zone = &schedule[schedule.find('=').map_or(0, |at| at + 1)..space];
        if !is_zone(zone) {
            return Some(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        rest = schedule[space..].trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields
        .iter()
        .zip(BOUNDS)
        .find_map(|(field, bounds)| field.split(',').filter(|part| !part.is_empty()).find_map(|part| range(part, bounds).err()))
}

/// Whether there is a time zone of that name, empty standing for UTC.
pub(super) fn is_zone(name: &str) -> bool {
    matches!(name, "" | "UTC")
        || jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name().is_none_or(|canonical| canonical == name))
}

struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

static BOUNDS: &[Bounds] = &[
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] },
    Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

fn descriptor(text: &str) -> Option<String> {
    if matches!(text, "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly") {
        return None;
    }
    match text.strip_prefix("@every ") {
        Some(duration) if is_duration(duration) => None,
        Some(duration) => Some(format!("failed to parse duration {text}: time: invalid duration {duration:?}")),
        None => Some(format!("unrecognized descriptor: {text}")),
    }
}

/// Go's notation: `1h30m`, `1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find(|unit| after.starts_with(**unit)) else {
            return false;
        };
        rest = &after[unit.len()..];
    }
    true
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let single = ends.len() == 1;
    let (start, mut end) = if matches!(ends[0], "*" | "?") {
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(ends[0], bounds)?;
        match ends.len() {
            1 => (start, start),
            2 => (start, number_or_name(ends[1], bounds)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match parts.len() {
        1 => 1,
        2 => {
            let step = number(parts[1])?;
            if single {
                end = bounds.max;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().position(|name| !name.is_empty() && *name == lower) {
        Some(at) => Ok(at as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let shown = corten_api::field::quoted(text);
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let syntax = plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(value) if value < 0 => Err(format!("negative number ({value}) not allowed: {text}")),
        Ok(value) => Ok(value.unsigned_abs()),
        Err(_) => {
            let why = if syntax { "invalid syntax" } else { "value out of range" };
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {shown}: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    #[rustfmt::skip]
    fn schedules_are_read_as_crontab_does() {
        check("*/5 * * * *",       None);
        check("0 9-17 * jan-mar mon,fri", None);
        check("@hourly",           None);
        check("@every 1h30m",      None);
        check("* * * *",           Some("expected exactly 5 fields, found 4: [* * * *]"));
        check("60 * * * *",        Some("end of range (60) above maximum (59): 60"));
        check("@often",            Some("unrecognized descriptor: @often"));
        check("a * * * *",         Some("failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"));
        check("*/0 * * * *",       Some("step of range should be a positive number: */0"));
        check("5-1 * * * *",       Some("beginning of range (5) beyond end of range (1): 5-1"));
        check("* * 0 * *",         Some("beginning of range (0) below minimum (1): 0"));

        #[track_caller]
        fn check(schedule: &str, expected: Option<&str>) {
            assert_eq!(fault(schedule).as_deref(), expected);
        }
    }
}
