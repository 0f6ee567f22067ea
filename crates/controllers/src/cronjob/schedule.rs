//! Cron expressions: five fields, names of months and days, ranges, lists, steps, and the `@` short forms. Pure.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

/// A parsed schedule: one bit per value and field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    times: Times,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    Fields(Box<Fields>),
    /// `@every 90m`
    Every(std::time::Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days or weekdays are a star: if neither is, a day has to fit only one of them.
    any_day: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Without a match in this time there is none (29 February on a given weekday comes within 28 years, and no schedule that
/// is served fires more rarely than once in five).
const YEARS: i16 = 5;

impl Schedule {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(period) = text.strip_prefix("@every ") {
            let period = every(period.trim())?;
            return Some(Self { times: Times::Every(period) });
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        let is_star = |field: &str| field.starts_with('*') || field.starts_with('?');
        let fields = Fields {
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: field(weekdays, 0, 6, &WEEKDAYS)?,
            any_day: is_star(days) || is_star(weekdays),
        };
        Some(Self { times: Times::Fields(Box::new(fields)) })
    }

    /// The first time after `from`, by the clocks of `zone`. Times that a change of the clocks skips do not happen.
    pub(super) fn after(&self, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let fields = match &self.times {
            Times::Every(period) => {
                let at = Timestamp::from_second(from.as_second()).ok()?;
                return at.checked_add(*period).ok();
            }
            Times::Fields(fields) => fields,
        };
        let local = from.to_zoned(zone.clone()).datetime();
        let mut date = local.date();
        let last = date.checked_add(Span::new().years(YEARS)).ok()?;
        let mut first_minute = Some((local.hour(), local.minute()));
        while date <= last {
            if fields.is_on(date) {
                for (hour, minute) in fields.times(first_minute) {
                    let at = DateTime::from_parts(date, jiff::civil::time(hour, minute, 0, 0));
                    let zoned = at.to_zoned(zone.clone()).ok()?;
                    // In a gap the clocks show another time than asked for.
                    if zoned.datetime() == at && zoned.timestamp() > from {
                        return Some(zoned.timestamp());
                    }
                }
            }
            first_minute = None;
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }
}

impl Fields {
    fn is_on(&self, date: Date) -> bool {
        let has = |bits: u64, value: i8| bits & (1 << value) != 0;
        let (day, weekday) = (has(self.days, date.day()), has(self.weekdays, date.weekday().to_sunday_zero_offset()));
        has(self.months, date.month()) && if self.any_day { day && weekday } else { day || weekday }
    }

    /// The times of a day, not before `first`.
    fn times(&self, first: Option<(i8, i8)>) -> impl Iterator<Item = (i8, i8)> + '_ {
        let hours = (0..24).filter(|hour| self.hours & (1 << hour) != 0);
        let times =
            hours.flat_map(|hour| (0..60).filter(|minute| self.minutes & (1 << minute) != 0).map(move |minute| (hour, minute)));
        times.filter(move |time| first.is_none_or(|first| *time >= first))
    }
}

fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    text.split(',').try_fold(0, |bits, part| Some(bits | range(part, min, max, names)?))
}

fn range(text: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
        None => (text, None),
    };
    let value = |text: &str| {
        let named = names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name))
            .and_then(|at| u32::try_from(at).ok())
            .map(|at| at + min);
        named.or_else(|| text.parse().ok())
    };
    let (first, last) = match span {
        "*" | "?" => (min, max),
        _ => match span.split_once('-') {
            Some((first, last)) => (value(first)?, value(last)?),
            // `5/15` runs to the end.
            None => (value(span)?, if step.is_some() { max } else { value(span)? }),
        },
    };
    if first < min || last > max || first > last {
        return None;
    }
    Some((first..=last).step_by(usize::try_from(step.unwrap_or(1)).ok()?).fold(0, |bits, value| bits | 1 << value))
}

/// A duration such as `1h30m`, at least a second.
fn every(text: &str) -> Option<std::time::Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        seconds += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    std::time::Duration::try_from_secs_f64(f64::max(seconds, 1.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_next_time() {
        //    schedule            zone              from                     next
        check("* * * * *",        "UTC",            "2026-03-01T10:00:00Z",  "2026-03-01T10:01:00Z");
        check("*/15 * * * *",     "UTC",            "2026-03-01T10:00:30Z",  "2026-03-01T10:15:00Z");
        check("5/20 * * * *",     "UTC",            "2026-03-01T10:30:00Z",  "2026-03-01T10:45:00Z");
        check("0 9-17 * * 1-5",   "UTC",            "2026-03-06T17:00:00Z",  "2026-03-09T09:00:00Z"); // over a weekend
        check("0 0 1 jan *",      "UTC",            "2026-03-01T00:00:00Z",  "2027-01-01T00:00:00Z");
        check("0 0 13 * FRI",     "UTC",            "2026-03-01T00:00:00Z",  "2026-03-06T00:00:00Z"); // either of them
        check("@daily",           "UTC",            "2026-02-28T12:00:00Z",  "2026-03-01T00:00:00Z");
        check("0 0 29 2 *",       "UTC",            "2026-03-01T00:00:00Z",  "2028-02-29T00:00:00Z");
        check("@every 1h30m",     "UTC",            "2026-03-01T10:00:00Z",  "2026-03-01T11:30:00Z");
        check("0 12 * * *",       "Europe/Berlin",  "2026-01-10T11:30:00Z",  "2026-01-11T11:00:00Z");
        check("0 12 * * *",       "Europe/Berlin",  "2026-07-10T09:30:00Z",  "2026-07-10T10:00:00Z");
        check("30 2 * * *",       "Europe/Berlin",  "2026-03-28T12:00:00Z",  "2026-03-30T00:30:00Z"); // 02:30 does not exist on the 29th
        #[track_caller]
        fn check(schedule: &str, zone: &str, from: &str, expected: &str) {
            let next = Schedule::parse(schedule).unwrap().after(from.parse().unwrap(), &TimeZone::get(zone).unwrap());
            assert_eq!(next, Some(expected.parse().unwrap()), "{schedule}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "5-1 * * * *", "*/0 * * * *", "@never", "* * * * * *"]
        {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().after(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
