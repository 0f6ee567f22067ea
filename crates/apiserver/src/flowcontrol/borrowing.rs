//! Seats that one level does not need and another one does: how many each level has until the next look.

use std::time::Instant;

use super::demand::Demand;
use super::queues::Level;

/// What a level may have, and what it needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Seats by its shares.
    pub(super) nominal: usize,
    /// Seats that it never lends.
    pub(super) least: usize,
    /// Seats that it may have at most, borrowed ones included.
    pub(super) most: usize,
    /// Seats that were taken or waited for.
    pub(super) demand: Demand,
}

impl Wish {
    /// What it has in any case: what it needed of its own.
    fn floor(&self) -> f64 {
        self.demand.most.min(self.nominal).max(self.least) as f64
    }

    /// What it would have if all could have the same part of what they want.
    pub(super) fn target(&self) -> f64 {
        /// Who wants nothing gets a part of what is left over all the same.
        const LEAST: f64 = 0.001;
        self.demand.smoothed.max(self.floor()).max(LEAST)
    }

    /// `part` of what it wants, within what it may have.
    fn given(&self, part: f64) -> f64 {
        let floor = self.floor();
        (self.target() * part).clamp(floor, floor.max(self.most as f64))
    }
}

/// How the seats of all levels are divided.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Division {
    pub(super) seats: Vec<usize>,
    /// What part of its target everyone has who is kept by no bound.
    pub(super) part: f64,
}

/// Divides the seats of all levels: everyone gets the same part of what they want, but not less than what they needed of their
/// own and not more than they may have (max-min fairness, KEP-1040).
pub(super) fn allot(wishes: &[Wish]) -> Division {
    let total = wishes.iter().map(|wish| wish.nominal).sum::<usize>() as f64;
    let sum = |part: f64| wishes.iter().map(|wish| wish.given(part)).sum::<f64>();
    // The sum grows with the part: halve the range until it is one number.
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while sum(high) < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total { low = middle } else { high = middle }
    }
    Division { seats: wishes.iter().map(|wish| wish.given(high).round() as usize).collect(), part: high }
}

/// Divides the seats of `levels` anew by what they needed. Returns what part of their targets they got.
pub(super) fn rebalance<'a>(levels: impl Iterator<Item = &'a std::sync::Arc<Level>>, now: Instant) -> f64 {
    let wishing: Vec<_> = levels.filter_map(|level| Some((level, level.wish(now)?))).collect();
    let wishes: Vec<Wish> = wishing.iter().map(|(_, wish)| *wish).collect();
    let division = allot(&wishes);
    for ((level, wish), seats) in wishing.into_iter().zip(division.seats) {
        level.limit(seats, wish.target());
    }
    division.part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn everyone_gets_the_same_part_of_what_they_want() {
        let wish = |nominal, least, most, demand: usize| {
            let demand = Demand { most: demand, smoothed: demand as f64, ..Demand::default() };
            Wish { nominal, least, most, demand }
        };
        let seats = |wishes: &[Wish]| allot(wishes).seats;
        // One needs more, the other lends what it may.
        assert_eq!(seats(&[wish(10, 5, 99, 0), wish(10, 5, 99, 99)]), [5, 15]);
        // Borrowing has a limit, and the rest stays with its owner.
        assert_eq!(seats(&[wish(10, 0, 99, 0), wish(10, 5, 12, 99)]), [8, 12]);
        // Two borrow by what they want.
        assert_eq!(seats(&[wish(30, 0, 99, 0), wish(10, 5, 99, 40), wish(20, 5, 99, 80)]), [0, 20, 40]);
        // Needed seats are not lent.
        assert_eq!(seats(&[wish(10, 5, 99, 10), wish(10, 5, 99, 99)]), [10, 10]);
        // Nobody needs anything: what is left over is divided alike.
        assert_eq!(seats(&[wish(10, 0, 99, 0), wish(10, 0, 99, 0)]), [10, 10]);
        assert_eq!(seats(&[wish(20, 5, 99, 10), wish(20, 5, 99, 5)]), [27, 13]);
        assert_eq!(seats(&[]), [0; 0]);
    }

    #[test]
    fn who_was_busy_a_while_ago_keeps_some_room() {
        let quiet = Demand { smoothed: 15.0, ..Demand::default() };
        let busy = Demand { most: 99, smoothed: 30.0, ..Demand::default() };
        let wish = |demand| Wish { nominal: 20, least: 0, most: 99, demand };
        assert_eq!(allot(&[wish(quiet), wish(busy)]).seats, [13, 27]);
    }
}
