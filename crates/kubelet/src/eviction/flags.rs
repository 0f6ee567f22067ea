//! Thresholds as flags and configuration files give them: a map of signal to amount for each of hard, soft, grace period and
//! minimum reclaim.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Amount, Resource, Threshold};
use crate::quantity;

/// Upstream's hard thresholds, as its flag gives them.
pub const HARD: &str =
    "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";

/// Why thresholds are not taken, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Not `signal<amount` or `signal=amount`.
    #[error("invalid format: {0}")]
    Format(String),
    /// A signal that there is not.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// No amount.
    #[error("failed to parse eviction threshold {0:?}")]
    Amount(String),
    /// An amount below nothing.
    #[error("eviction threshold {0} must be positive: {1}")]
    Negative(String, String),
    /// No duration.
    #[error("failed to parse grace period {0:?}")]
    Grace(String),
    /// A soft threshold has to say how long it must be met.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(String),
}

/// Reads `memory.available<100Mi,nodefs.available<10%`, with `<` or `=` between.
///
/// # Errors
/// [`FlagError::Format`].
pub fn parse(text: &str, between: char) -> Result<BTreeMap<String, String>, FlagError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        let (signal, amount) = part.split_once(between).ok_or_else(|| FlagError::Format(part.to_owned()))?;
        Ok((signal.trim().to_owned(), amount.trim().to_owned()))
    });
    pairs.collect()
}

/// The thresholds that four such maps make.
///
/// # Errors
/// When a signal, an amount or a duration is none, or a soft threshold has no grace period.
pub fn thresholds(
    hard: &BTreeMap<String, String>,
    soft: &BTreeMap<String, String>,
    grace: &BTreeMap<String, String>,
    reclaim: &BTreeMap<String, String>,
) -> Result<Vec<Threshold>, FlagError> {
    let known = |signal: &str| Resource::of(signal).map(drop).ok_or_else(|| FlagError::Signal(signal.to_owned()));
    let mut all = Vec::new();
    for (signal, text) in hard.iter().chain(soft) {
        known(signal)?;
        // Both are upstream's way to switch a threshold off.
        if text == "0%" || text == "100%" {
            continue;
        }
        let value = amount(signal, text)?;
        all.push(Threshold { signal: signal.clone(), value, grace: Duration::ZERO, min_reclaim: None });
    }
    let first_soft = all.len() - soft.values().filter(|text| *text != "0%" && *text != "100%").count();
    for threshold in &mut all[first_soft..] {
        let text = grace.get(&threshold.signal).ok_or_else(|| FlagError::NoGrace(threshold.signal.clone()))?;
        let span: Option<jiff::SignedDuration> = text.parse().ok();
        let span = span.and_then(|span| Duration::try_from(span).ok());
        threshold.grace = span.ok_or_else(|| FlagError::Grace(text.clone()))?;
    }
    for (signal, text) in reclaim {
        known(signal)?;
        let extra = amount(signal, text)?;
        all.iter_mut().filter(|threshold| threshold.signal == *signal).for_each(|threshold| threshold.min_reclaim = Some(extra));
    }
    Ok(all)
}

fn amount(signal: &str, text: &str) -> Result<Amount, FlagError> {
    let broken = || FlagError::Amount(text.to_owned());
    let amount = match text.strip_suffix('%') {
        Some(percent) => Amount::Part(percent.parse::<f64>().map_err(|_| broken())? / 100.0),
        None => Amount::Absolute(quantity::parse(text).ok_or_else(broken)?),
    };
    let negative = match amount {
        Amount::Absolute(amount) => amount < 0,
        Amount::Part(part) => part < 0.0,
    };
    if negative { Err(FlagError::Negative(signal.to_owned(), text.to_owned())) } else { Ok(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_thresholds() {
        let map = |text: &str, between| parse(text, between).expect("well formed");
        let all = thresholds(
            &map("memory.available<100Mi,nodefs.available<10%,imagefs.available<0%", '<'),
            &map("memory.available<1.5Gi", '<'),
            &map("memory.available=1m30s", '='),
            &map("nodefs.available=1Gi", '='),
        );
        let rows: Vec<_> =
            all.expect("sound").into_iter().map(|t| (t.signal, t.value, t.grace.as_secs(), t.min_reclaim)).collect();
        assert_eq!(
            rows,
            [
                ("memory.available".to_owned(), Amount::Absolute(100 << 20), 0, None),
                ("nodefs.available".to_owned(), Amount::Part(0.1), 0, Some(Amount::Absolute(1 << 30))),
                ("memory.available".to_owned(), Amount::Absolute(3 << 29), 90, None),
            ]
        );
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_threshold_is_refused() {
        check("memory.available<x",   "",                       "",                     "failed to parse eviction threshold \"x\"");
        check("memory.free<1Gi",      "",                       "",                     "unsupported eviction signal memory.free");
        check("memory.available<-1",  "",                       "",                     "eviction threshold memory.available must be positive: -1");
        check("",                     "memory.available<1Gi",   "",                     "grace period must be specified for the soft eviction threshold memory.available");
        check("",                     "memory.available<1Gi",   "memory.available=x",   "failed to parse grace period \"x\"");
        check("memory.available",     "",                       "",                     "invalid format: memory.available");
        #[track_caller]
        fn check(hard: &str, soft: &str, grace: &str, expected: &str) {
            let run = || thresholds(&parse(hard, '<')?, &parse(soft, '<')?, &parse(grace, '=')?, &BTreeMap::new());
            assert_eq!(run().expect_err("refused").to_string(), expected);
        }
    }
}
