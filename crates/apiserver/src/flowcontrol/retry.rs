//! After how long a rejected client should try again: the more of them there are, the later (upstream's rule, which doubles the
//! time while the rejections go on and takes it back second by second).

use std::collections::VecDeque;

/// Seconds that nobody is asked to wait longer than.
const LONGEST: u64 = 32;

/// The rejections of one priority level.
pub(super) struct Rejections {
    /// Rejections of past seconds, oldest first.
    past: VecDeque<(u64, u64)>,
    /// The second that is counted at this time, and how many there were in it.
    current: (u64, u64),
    /// What clients are told.
    after: u64,
    /// When that was raised last.
    raised: u64,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { past: VecDeque::new(), current: (0, 0), after: 1, raised: 0 }
    }
}

impl Rejections {
    /// Counts a rejection in the second `now`, and tells after how many seconds its client should come again.
    pub(super) fn count(&mut self, now: u64) -> u64 {
        if self.current.0 == now {
            self.current.1 += 1;
            return self.after;
        }
        self.past.push_back(self.current);
        let newest = self.current.0;
        let kept = (2 * self.after).min(LONGEST);
        while self.past.front().is_some_and(|(second, _)| newest.saturating_sub(*second) > kept) {
            self.past.pop_front();
        }
        self.current = (now, 1);
        self.adapt(now);
        self.after
    }

    fn adapt(&mut self, now: u64) {
        let recent = self.past.iter().filter(|(second, _)| *second < now && now - second <= self.after);
        let rejected: u64 = recent.map(|(_, count)| count).sum();
        if now.saturating_sub(self.raised) >= self.after && rejected >= 3 * self.after {
            self.after = (2 * self.after).min(LONGEST);
            self.raised = now;
        } else if rejected < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_while_rejections_go_on_and_shrinks_afterwards() {
        let mut rejections = Rejections::default();
        let mut second = |now: u64, count: u64| (0..count).map(|_| rejections.count(now)).last().unwrap();
        assert_eq!(second(100, 3), 1, "nothing is known of the past yet");
        assert_eq!(second(101, 3), 2, "three in the second before");
        assert_eq!(second(102, 3), 2, "raised too recently");
        assert_eq!(second(103, 3), 4, "six in two seconds");
        assert_eq!(second(107, 20), 3, "three in four seconds");
        assert_eq!(second(108, 1), 6, "twenty in three seconds");
        assert_eq!(second(140, 1), 5, "none lately");
        assert_eq!(second(141, 1), 4);
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_time() {
        let mut rejections = Rejections::default();
        let longest = (0..2000).map(|now| (0..100).map(|_| rejections.count(now)).max().unwrap()).max();
        assert_eq!(longest, Some(LONGEST));
    }
}
