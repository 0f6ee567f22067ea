//! Semantic versions (<https://semver.org>, version 2).

use std::cmp::Ordering;
use std::rc::Rc;

use super::Call;
use crate::value::{EvalError, Value};

/// A version.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

impl Semver {
    /// Reads `major.minor.patch` with what may follow. `lax` takes a leading `v`, leading zeros and missing parts.
    pub(crate) fn parse(text: &str, lax: bool) -> Option<Self> {
        let text = if lax { text.trim().strip_prefix('v').unwrap_or(text.trim()) } else { text };
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || parts.len() < 3 && !lax {
            return None;
        }
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(parts) {
            *number = number_of(part, lax)?;
        }
        let pre: Vec<String> = pre.map_or_else(Vec::new, |pre| pre.split('.').map(str::to_owned).collect());
        let valid = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric());
        let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let pre_fits = pre.iter().all(|part| valid(part) && (!numeric(part) || number_of(part, false).is_some()));
        let build_fits = build.is_none_or(|build| build.split('.').all(valid));
        (pre_fits && build_fits).then_some(Self { numbers, pre })
    }

    /// The order of precedence; what was built from it does not matter.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let differs = self.pre.iter().zip(&other.pre).map(|(left, right)| compare_parts(left, right));
                differs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn number_of(part: &str, lax: bool) -> Option<u64> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || part.len() > 1 && part.starts_with('0') && !lax { None } else { part.parse().ok() }
}

fn compare_parts(left: &str, right: &str) -> Ordering {
    match (left.parse::<u64>(), right.parse::<u64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        _ => left.cmp(right),
    }
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bool, Int, Semver as Version, String};
    let lax = matches!(args, [_, Bool(true)]);
    let number = |version: &Semver, at: usize| match i64::try_from(version.numbers[at]) {
        Ok(number) => Ok(Int(number)),
        Err(_) => Err(EvalError::failed("integer overflow")),
    };
    Some(match (function, args) {
        ("semver", [String(text)] | [String(text), Bool(_)]) => Semver::parse(text, lax)
            .map(|version| Version(Rc::new(version)))
            .ok_or_else(|| EvalError::failed(format!("invalid semantic version {text:?}"))),
        ("isSemver", [String(text)] | [String(text), Bool(_)]) => Ok(Bool(Semver::parse(text, lax).is_some())),
        ("isGreaterThan", [Version(left), Version(right)]) => Ok(Bool(left.compare(right).is_gt())),
        ("isLessThan", [Version(left), Version(right)]) => Ok(Bool(left.compare(right).is_lt())),
        ("compareTo", [Version(left), Version(right)]) => Ok(Int(left.compare(right) as i64)),
        ("major", [Version(version)]) => number(version, 0),
        ("minor", [Version(version)]) => number(version, 1),
        ("patch", [Version(version)]) => number(version, 2),
        _ => return None,
    })
}
