//! The time of day.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now.
#[cfg(not(test))]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Now, moved along by tokio's paused clock, so that component tests can let days pass.
#[cfg(test)]
pub(crate) fn now() -> Timestamp {
    thread_local! {
        static START: (Timestamp, tokio::time::Instant) = (Timestamp::now(), tokio::time::Instant::now());
    }
    START.with(|(start, instant)| *start + instant.elapsed())
}

/// Now, as the API writes it: whole seconds.
pub(crate) fn now_time() -> Time {
    whole_seconds(now())
}

/// `at` without fractions, which the API would drop: an object in hand equals the same object read back.
pub(crate) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// From `from` to `to`, zero when `to` is earlier.
pub(crate) fn elapsed(from: Timestamp, to: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
