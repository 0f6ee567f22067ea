//! Seats that one level does not need and another one does: how many each level has until the next look.

use super::queues::Level;

/// What a level may have, and what it needed since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// Seats by its shares.
    pub(super) nominal: usize,
    /// Seats that it never lends.
    pub(super) least: usize,
    /// Seats that it may have at most, borrowed ones included.
    pub(super) most: usize,
    /// Seats that were taken or waited for at one time.
    pub(super) demand: usize,
}

/// Divides the seats of all levels: first to everyone what they need of their own, then what is left to those who need more,
/// and what nobody needs back to its owners.
pub(super) fn allot(wishes: &[Wish]) -> Vec<usize> {
    let total: usize = wishes.iter().map(|wish| wish.nominal).sum();
    let mut given: Vec<usize> = wishes.iter().map(|wish| wish.demand.min(wish.nominal).max(wish.least)).collect();
    let mut left = total.saturating_sub(given.iter().sum());
    while left > 0 {
        let wants = |at: usize| wishes[at].demand.min(wishes[at].most).saturating_sub(given[at]);
        let wanting: Vec<(usize, usize)> = (0..wishes.len()).map(|at| (at, wants(at))).filter(|(_, more)| *more > 0).collect();
        let shares: usize = wanting.iter().map(|(at, _)| wishes[*at].nominal.max(1)).sum();
        if wanting.is_empty() {
            break;
        }
        let before = left;
        for (at, more) in wanting {
            let share = (before * wishes[at].nominal.max(1) / shares).max(1);
            let lent = share.min(more).min(left);
            given[at] += lent;
            left -= lent;
        }
    }
    for (given, wish) in given.iter_mut().zip(wishes) {
        let back = wish.nominal.saturating_sub(*given).min(left);
        *given += back;
        left -= back;
    }
    given
}

/// Divides the seats of `levels` anew by what they needed since the last time.
pub(super) fn rebalance<'a>(levels: impl Iterator<Item = &'a std::sync::Arc<Level>>) {
    let wishing: Vec<_> = levels.filter_map(|level| Some((level, level.wish()?))).collect();
    let wishes: Vec<Wish> = wishing.iter().map(|(_, wish)| *wish).collect();
    for ((level, _), seats) in wishing.into_iter().zip(allot(&wishes)) {
        level.limit(seats);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn idle_seats_go_to_those_who_need_them() {
        let wish = |nominal, least, most, demand| Wish { nominal, least, most, demand };
        // Nobody needs more than their own: everyone keeps it.
        assert_eq!(allot(&[wish(10, 5, 20, 3), wish(10, 5, 20, 10)]), [10, 10]);
        // One needs more, the other lends what it may.
        assert_eq!(allot(&[wish(10, 5, 99, 0), wish(10, 5, 99, 99)]), [5, 15]);
        // Borrowing has a limit, and the rest stays with its owner.
        assert_eq!(allot(&[wish(10, 0, 99, 0), wish(10, 5, 12, 99)]), [8, 12]);
        // Two borrow by their shares.
        assert_eq!(allot(&[wish(30, 0, 99, 0), wish(10, 5, 99, 99), wish(20, 5, 99, 99)]), [0, 20, 40]);
        // Needed seats are not lent.
        assert_eq!(allot(&[wish(10, 5, 99, 10), wish(10, 5, 99, 99)]), [10, 10]);
    }
}
