//! The queues of a level, served so that every flow gets the same part of the seats' time (KEP-1040, fair queuing for server
//! requests): a queue's clock goes on by what its requests are worth, and the queue whose next request would be done first is
//! next. A flow of long or wide requests waits longer for each of them than one of short ones.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::queues::{Taken, Ticket};
use super::width::Width;

/// The queues of one level. Times are in seat-seconds of one queue.
pub(super) struct Queues {
    queues: Vec<Queue>,
    /// Changes with the number of queues: who began before is counted in none of them.
    generation: u64,
    /// Requests in all of them.
    waiting: usize,
    /// Queues of which somebody waits or runs.
    active: usize,
    /// The time of the level: what each queue could have got done so far.
    now: f64,
    advanced: Instant,
    /// The queue that was served last.
    turn: usize,
    /// Requests that came, which is also the next one's id.
    arrived: u64,
}

/// One queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Requests of it that run, and their seats.
    pub(super) running: usize,
    pub(super) seats: usize,
    /// When its next request begins in the time of the level.
    pub(super) next: f64,
}

/// A request in a queue.
pub(super) struct Waiting {
    id: u64,
    pub(super) ticket: Ticket,
    pub(super) sender: oneshot::Sender<Taken>,
    /// The time of the level when it came.
    arrived: f64,
}

impl Queues {
    pub(super) fn new(now: Instant) -> Self {
        Self { queues: Vec::new(), generation: 0, waiting: 0, active: 0, now: 0.0, advanced: now, turn: 0, arrived: 0 }
    }

    /// Goes on with `count` queues. Who waits in one that is gone waits in the last one left.
    pub(super) fn resize(&mut self, count: usize) {
        let count = count.max(1);
        if count == self.queues.len() {
            return;
        }
        self.generation += 1;
        let displaced: Vec<_> = self.queues.iter_mut().skip(count).flat_map(|queue| queue.waiting.drain(..)).collect();
        self.queues.resize_with(count, Queue::default);
        self.queues[count - 1].waiting.extend(displaced);
        for queue in &mut self.queues {
            (queue.running, queue.seats, queue.next) = (0, 0, self.now);
        }
        self.active = self.queues.iter().filter(|queue| !queue.waiting.is_empty()).count();
        self.turn = 0;
    }

    /// Lets time pass until `now`, in which `seats` were taken or waited for and at most `limit` worked.
    pub(super) fn advance(&mut self, now: Instant, seats: usize, limit: usize) {
        let passed = now.saturating_duration_since(self.advanced).as_secs_f64();
        self.advanced = now;
        if self.active > 0 {
            self.now += passed * seats.min(limit) as f64 / self.active as f64;
        }
    }

    /// The queue for a request of `flow`: of its hand the one with the least work in it.
    pub(super) fn choose(&mut self, flow: u64, hand: usize) -> usize {
        let mut cards = deal(flow, self.queues.len(), hand.max(1));
        let start = (self.arrived % cards.len().max(1) as u64) as usize;
        self.arrived += 1;
        // Flows that share cards do not all begin with the same one.
        cards.rotate_left(start);
        let load = |at: &usize| self.queues[*at].work();
        cards.into_iter().min_by(|a, b| load(a).total_cmp(&load(b))).unwrap_or_default()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Requests that wait in a queue.
    pub(super) fn waiting(&self, queue: usize) -> usize {
        self.queues[queue].waiting.len()
    }

    /// A request waits from now on; returns what it is removed by.
    pub(super) fn push(&mut self, at: usize, ticket: Ticket, sender: oneshot::Sender<Taken>) -> u64 {
        self.arrived += 1;
        let (id, arrived) = (self.arrived, self.now);
        let queue = &mut self.queues[at];
        self.active += usize::from(queue.is_idle());
        queue.waiting.push_back(Waiting { id, ticket, sender, arrived });
        queue.bound();
        self.waiting += 1;
        id
    }

    /// A request waits no longer.
    pub(super) fn remove(&mut self, at: usize, id: u64) -> Option<Waiting> {
        let found = |queue: &Queue| queue.waiting.iter().position(|waiting| waiting.id == id);
        // Its own queue nearly always; another one when there were fewer meanwhile.
        let own = self.queues.get(at).and_then(|queue| Some((at, found(queue)?)));
        let (at, found) = own.or_else(|| self.queues.iter().enumerate().find_map(|(at, queue)| Some((at, found(queue)?))))?;
        let queue = &mut self.queues[at];
        let gone = queue.waiting.remove(found);
        queue.bound();
        self.active -= usize::from(queue.is_idle());
        self.waiting -= 1;
        gone
    }

    /// The queue whose first request would be done first; of several the next in turn.
    pub(super) fn first(&mut self) -> Option<usize> {
        if self.waiting == 0 {
            return None;
        }
        let count = self.queues.len();
        let ends = (1..=count).map(|step| (self.turn + step) % count).filter_map(|at| {
            let queue = &self.queues[at];
            Some((at, queue.next + queue.waiting.front()?.ticket.width.work()))
        });
        ends.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
    }

    /// The seats that the first request of a queue needs.
    pub(super) fn front(&self, queue: usize) -> Option<usize> {
        self.queues[queue].waiting.front().map(|waiting| waiting.ticket.width.most())
    }

    /// Takes the first request from a queue, to run.
    pub(super) fn pop(&mut self, at: usize) -> Option<Waiting> {
        self.turn = at;
        let queue = &mut self.queues[at];
        let next = queue.waiting.pop_front()?;
        self.waiting -= 1;
        queue.count(next.ticket.width);
        Some(next)
    }

    /// A request of a queue runs without having waited.
    pub(super) fn started(&mut self, at: usize, width: Width) {
        let now = self.now;
        let queue = &mut self.queues[at];
        if queue.is_idle() {
            self.active += 1;
            // Who was away has saved nothing.
            queue.next = queue.next.max(now);
        }
        queue.count(width);
    }

    /// A request of a queue has ended, and was `more` work than was thought.
    pub(super) fn ended(&mut self, at: usize, seats: usize, more: f64) {
        let Some(queue) = self.queues.get_mut(at) else { return };
        queue.running = queue.running.saturating_sub(1);
        queue.seats = queue.seats.saturating_sub(seats);
        queue.next += more;
        queue.bound();
        self.active -= usize::from(queue.is_idle());
    }

    /// Which arrangement of queues this is.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The queues, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter()
    }

    /// The time of the level.
    pub(super) fn time(&self) -> f64 {
        self.now
    }
}

impl Queue {
    /// Nobody of it waits or runs.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    /// One more runs, which is thought to be as much work as it is wide.
    fn count(&mut self, width: Width) {
        self.running += 1;
        self.seats += width.most();
        self.next += width.work();
    }

    /// Work that waits, in seat-seconds.
    pub(super) fn work(&self) -> f64 {
        self.waiting.iter().map(|waiting| waiting.ticket.width.work()).sum()
    }

    /// Nothing begins before it has come.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }

    /// Those who wait, in order.
    pub(super) fn tickets(&self) -> impl ExactSizeIterator<Item = &Ticket> {
        self.waiting.iter().map(|waiting| &waiting.ticket)
    }
}

/// Deals a flow its hand: `size` different ones of `queues`, always the same for the same flow.
fn deal(mut flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let size = size.min(queues);
    let mut hand: Vec<usize> = Vec::with_capacity(size);
    for dealt in 0..size {
        let left = (queues - dealt) as u64;
        let mut card = (flow % left) as usize;
        flow /= left;
        // The card is a position among those left: past each dealt one that is not above it. The hand is kept sorted for that.
        let mut at = 0;
        while at < dealt && hand[at] <= card {
            card += 1;
            at += 1;
        }
        hand.insert(at, card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_have_no_queue_twice() {
        for flow in [0, 1, 63, 0xdead_beef, u64::MAX] {
            let mut hand = deal(flow, 64, 6);
            hand.dedup();
            assert_eq!(hand.len(), 6);
            assert!(hand.is_sorted() && hand.iter().all(|at| *at < 64));
        }
        assert_eq!(deal(5, 3, 6).len(), 3);
    }
}
