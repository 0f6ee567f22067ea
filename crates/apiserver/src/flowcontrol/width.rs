//! How many seats a request is worth (upstream's work estimator): a list as many as it shows objects; a write those who tell
//! its watchers, for a moment after it is answered.

use std::time::Duration;

use crate::request::{Query, RequestInfo};

/// Objects of a list that take one seat.
const OBJECTS_PER_SEAT: usize = 100;
/// Watchers that take one seat while they are told of a write; with fewer it is not worth counting.
const WATCHES_PER_SEAT: usize = 10;
/// How long it takes to tell them.
const TELLING: Duration = Duration::from_millis(5);

/// How long a request is thought to run before anything is known of it.
const USUAL: Duration = Duration::from_millis(3);

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    /// Seats while it runs.
    pub(super) running: usize,
    /// Seats after it is answered, and for how long.
    pub(super) after: Option<(usize, Duration)>,
}

impl Width {
    /// Seats that must be free for it to begin.
    pub(super) fn most(self) -> usize {
        self.running.max(self.after.map_or(0, |(seats, _)| seats))
    }

    /// The work it is thought to be, in seat-seconds.
    pub(super) fn work(self) -> f64 {
        self.running as f64 * USUAL.as_secs_f64() + self.later()
    }

    /// What of that comes after it is answered.
    pub(super) fn later(self) -> f64 {
        self.after.map_or(0.0, |(seats, lasting)| seats as f64 * lasting.as_secs_f64())
    }
}

/// What is known of a request's surroundings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// Objects of the resource.
    pub(super) stored: usize,
    /// Watchers that are told of a write.
    pub(super) watches: usize,
    /// Seats that one request may take.
    pub(super) widest: usize,
}

/// Seats for a request.
pub(super) fn of(info: &RequestInfo, query: &Query, around: Surroundings) -> Width {
    let one = Width { running: 1, after: None };
    match info.verb.as_str() {
        "list" => Width { running: listed(info, query, around).clamp(1, around.widest), after: None },
        "watch" if lists_first(query) => Width { running: listed(info, query, around).clamp(1, around.widest), after: None },
        "create" | "update" | "patch" | "delete" => {
            // A token is made without a word to those who watch service accounts.
            let silent = info.resource == "serviceaccounts" && info.subresource == "token";
            if silent || around.watches < WATCHES_PER_SEAT {
                return one;
            }
            let wanted = around.watches.div_ceil(WATCHES_PER_SEAT);
            let seats = wanted.min(around.widest);
            // Narrower and longer is as much work.
            let lasting = TELLING.mul_f64(wanted as f64 / seats as f64);
            Width { running: 1, after: Some((seats, lasting)) }
        }
        _ => one,
    }
}

/// Whether a watch begins with all there is.
fn lists_first(query: &Query) -> bool {
    query.flag("sendInitialEvents") || matches!(query.text("resourceVersion"), "" | "0")
}

fn listed(info: &RequestInfo, query: &Query, around: Surroundings) -> usize {
    if !info.name.is_empty() {
        return 1;
    }
    let limit = query.text("limit").parse::<usize>().ok().filter(|limit| *limit > 0 && info.verb == "list");
    // With a selector more is looked at than shown.
    let selects = !query.text("labelSelector").is_empty() || !query.text("fieldSelector").is_empty();
    let objects = match limit {
        Some(limit) if selects => (2 * limit).min(around.stored),
        Some(limit) => limit.min(around.stored),
        None => around.stored,
    };
    objects.div_ceil(OBJECTS_PER_SEAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn widths_are_upstreams() {
        let ms = Duration::from_millis;
        //     verb      resource           query                              stored watches running after
        check("get",    "pods",            "",                                 5000,  500,    1,      None);
        check("list",   "pods",            "",                                 5000,  0,      10,     None);
        check("list",   "pods",            "",                                 250,   0,      3,      None);
        check("list",   "pods",            "",                                 0,     0,      1,      None);
        check("list",   "pods",            "limit=100",                        5000,  0,      1,      None);
        check("list",   "pods",            "limit=200&labelSelector=a",        5000,  0,      4,      None);
        check("watch",  "pods",            "resourceVersion=7",                5000,  0,      1,      None);
        check("watch",  "pods",            "resourceVersion=0",                250,   0,      3,      None);
        check("watch",  "pods",            "resourceVersion=7&sendInitialEvents=true", 250, 0, 3,     None);
        check("update", "pods",            "",                                 5000,  9,      1,      None);
        check("update", "pods",            "",                                 5000,  10,     1,      Some((1, ms(5))));
        check("create", "pods",            "",                                 5000,  41,     1,      Some((5, ms(5))));
        check("delete", "pods",            "",                                 5000,  400,    1,      Some((10, ms(20))));
        check("deletecollection", "pods",  "",                                 5000,  400,    1,      None);
        check("patch",  "serviceaccounts", "",                                 5,     20,     1,      Some((2, ms(5))));
        #[track_caller]
        fn check(verb: &str, resource: &str, query: &str, stored: usize, watches: usize, running: usize, after: Option<(usize, Duration)>) {
            let info = RequestInfo { verb: verb.into(), resource: resource.into(), ..RequestInfo::default() };
            let width = of(&info, &Query::parse(query), Surroundings { stored, watches, widest: 10 });
            assert_eq!(width, Width { running, after });
        }
    }
}
