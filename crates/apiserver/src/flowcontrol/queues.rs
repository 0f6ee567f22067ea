//! A priority level at work: seats, queues, and who is next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::borrowing::Wish;
use super::demand::{Demand, Integrator};
use super::retry::Rejections;

/// Why a request gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// None is free, and the level does not queue.
    NoQueue,
    /// None is free, and the queues of the flow are full.
    QueueFull,
    /// None came free in time.
    Late,
}

impl Full {
    /// As metrics have it.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NoQueue => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::Late => "time-out",
        }
    }
}

/// How a level is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Seats by the level's shares; `None` for the exempt level.
    pub(super) seats: Option<usize>,
    /// Seats that it does not lend.
    pub(super) least: usize,
    /// Seats that it may have with borrowed ones.
    pub(super) most: usize,
    /// Queues; 0 to reject what finds no seat.
    pub(super) queues: usize,
    /// Queues that one flow may use.
    pub(super) hand: usize,
    /// Requests in one queue.
    pub(super) length: usize,
}

/// A priority level. It outlives changes of its configuration, and so do the requests in it.
pub(super) struct Level {
    pub(super) name: String,
    pub(super) uid: Arc<str>,
    state: Mutex<State>,
    rejections: Mutex<Rejections>,
}

struct State {
    shape: Shape,
    /// Seats there are at this time, with those lent and borrowed.
    limit: usize,
    /// Seats that are taken.
    running: usize,
    /// Seats that are waited for.
    queued: usize,
    /// Of both together.
    demand: Integrator,
    /// What was needed until the last look.
    needed: Demand,
    /// What the level should have by that, before others were asked.
    target: f64,
    queues: Vec<VecDeque<Waiting>>,
    /// The queue that is served next.
    turn: usize,
}

/// A request in a queue.
struct Waiting {
    /// Seats it needs.
    width: usize,
    sender: oneshot::Sender<Taken>,
}

/// Seats that are taken by a request; given to the next in turn when dropped.
pub(super) struct Taken {
    level: Arc<Level>,
    width: usize,
}

impl Level {
    pub(super) fn new(name: &str, uid: &str, shape: Shape) -> Self {
        let demand = Integrator::new(Instant::now());
        let needed = Demand::default();
        let queues = Vec::new();
        let state = State { shape, limit: 0, running: 0, queued: 0, demand, needed, target: 0.0, queues, turn: 0 };
        let level = Self { name: name.to_owned(), uid: uid.into(), state: Mutex::new(state), rejections: Mutex::default() };
        level.reshape(shape);
        level
    }

    /// Goes on with another configuration. Who waits in a queue that is gone waits in the last one left.
    pub(super) fn reshape(&self, shape: Shape) {
        let mut state = self.state.lock();
        state.shape = shape;
        state.limit = shape.seats.unwrap_or_default();
        let count = shape.queues.max(1);
        let kept = count.min(state.queues.len());
        let displaced: Vec<_> = state.queues.split_off(kept).into_iter().flatten().collect();
        state.queues.resize_with(count, VecDeque::new);
        state.queues[count - 1].extend(displaced);
        state.turn = 0;
    }

    /// What the level may have and needs by what was seen since this was asked last; `None` where seats are not counted.
    pub(super) fn wish(&self, now: Instant) -> Option<Wish> {
        let mut state = self.state.lock();
        let Shape { seats, least, most, .. } = state.shape;
        let observed = state.demand.look(now);
        state.needed.update(&observed);
        Some(Wish { nominal: seats?, least, most, demand: state.needed })
    }

    /// Goes on with another number of seats.
    pub(super) fn limit(self: &Arc<Self>, seats: usize, target: f64) {
        let mut state = self.state.lock();
        (state.limit, state.target) = (seats, target);
        drop(state);
        self.dispatch();
    }

    /// What the level needed until the last look, and what it should have by that.
    pub(super) fn needs(&self) -> (Demand, f64) {
        let state = self.state.lock();
        (state.needed, state.target)
    }

    /// Seats that one request may take at most: a part of what the level has, and never many.
    pub(super) fn widest(&self) -> usize {
        const MOST: usize = 10;
        let seats = self.state.lock().shape.seats.unwrap_or(1);
        // 0.15 of the seats, rounded up.
        (seats * 15).div_ceil(100).clamp(1, MOST)
    }

    /// Figures for the metrics: seats by shares, seats there are now, least, most, taken ones.
    pub(super) fn figures(&self) -> Option<[usize; 5]> {
        let state = self.state.lock();
        Some([state.shape.seats?, state.limit, state.shape.least, state.shape.most, state.running])
    }

    /// Takes `width` seats for a request of `flow`, waiting for at most `patience`. `None` where seats are not counted.
    pub(super) async fn take(level: &Arc<Self>, flow: u64, width: usize, patience: Duration) -> Result<Option<Taken>, Full> {
        let waiting = {
            let mut state = level.state.lock();
            if state.shape.seats.is_none() {
                return Ok(None);
            }
            if state.has_room(width) && state.queues.iter().all(VecDeque::is_empty) {
                state.start(width);
                return Ok(Some(Taken { level: level.clone(), width }));
            }
            state.enqueue(flow, width)?
        };
        // A seat that comes just too late is in the channel, and dropped with it.
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(taken)) => Ok(Some(taken)),
            _ => Err(Full::Late),
        }
    }

    /// Counts a request that was turned away, and tells after how many seconds it should come again.
    pub(super) fn rejected(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.rejections.lock().count(now.as_secs())
    }

    fn give_back(self: &Arc<Self>, width: usize) {
        let mut state = self.state.lock();
        state.running -= width;
        state.note();
        drop(state);
        self.dispatch();
    }

    /// Hands free seats to those who wait, one queue after the other.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let Some(next) = state.next() else { return };
                state.start(next.width);
                next
            };
            // Sent without the lock: a seat that nobody waits for any more is dropped here, which comes back to this function.
            if let Err(taken) = next.sender.send(Taken { level: self.clone(), width: next.width }) {
                drop(taken);
                return;
            }
        }
    }
}

impl State {
    /// A request that is wider than all there is runs alone.
    fn has_room(&self, width: usize) -> bool {
        self.shape.seats.is_none() || self.running + width <= self.limit || (self.running == 0 && self.limit > 0)
    }

    fn start(&mut self, width: usize) {
        self.running += width;
        self.note();
    }

    /// Takes in that other seats are taken or waited for.
    fn note(&mut self) {
        self.demand.set(self.running + self.queued, Instant::now());
    }

    fn enqueue(&mut self, flow: u64, width: usize) -> Result<oneshot::Receiver<Taken>, Full> {
        if self.shape.queues == 0 {
            return Err(Full::NoQueue);
        }
        // Who left does not count.
        let hand = deal(flow, self.queues.len(), self.shape.hand);
        for at in &hand {
            let queued = &mut self.queued;
            self.queues[*at].retain(|waiting| {
                let stays = !waiting.sender.is_closed();
                *queued -= if stays { 0 } else { waiting.width };
                stays
            });
        }
        let shortest = hand.into_iter().min_by_key(|at| self.queues[*at].len()).ok_or(Full::QueueFull)?;
        if self.queues[shortest].len() >= self.shape.length {
            return Err(Full::QueueFull);
        }
        let (sender, receiver) = oneshot::channel();
        self.queues[shortest].push_back(Waiting { width, sender });
        self.queued += width;
        self.note();
        Ok(receiver)
    }

    /// The next request in turn, if there is room for it. When there is none everyone waits: a wide request must not be passed
    /// by narrow ones for ever.
    fn next(&mut self) -> Option<Waiting> {
        for _ in 0..self.queues.len() {
            let at = self.turn % self.queues.len();
            while self.queues[at].front().is_some_and(|waiting| waiting.sender.is_closed()) {
                self.queued -= self.queues[at].pop_front().map_or(0, |gone| gone.width);
            }
            if let Some(width) = self.queues[at].front().map(|waiting| waiting.width) {
                if !self.has_room(width) {
                    return None;
                }
                self.turn = at + 1;
                self.queued -= width;
                return self.queues[at].pop_front();
            }
            self.turn = at + 1;
        }
        None
    }
}

impl Taken {
    /// Gives all but `width` seats back.
    pub(super) fn shrink(&mut self, width: usize) {
        let back = self.width.saturating_sub(width);
        self.width -= back;
        self.level.give_back(back);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.level.give_back(self.width);
    }
}

/// Deals a flow its hand: `size` different ones of `queues`, always the same for the same flow.
fn deal(mut flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(size);
    for dealt in 0..size.min(queues) {
        let left = (queues - dealt) as u64;
        let mut card = (flow % left) as usize;
        flow /= left;
        // The card is a position among those left: past each dealt one that is not above it.
        let mut sorted = hand.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if taken <= card {
                card += 1;
            }
        }
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn level(seats: usize, queues: usize, length: usize) -> Arc<Level> {
        Arc::new(Level::new("l", "u", Shape { seats: Some(seats), least: seats, most: seats, queues, hand: 1, length }))
    }

    #[test]
    fn hands_have_no_queue_twice() {
        for flow in [0, 1, 63, 0xdead_beef, u64::MAX] {
            let mut hand = deal(flow, 64, 6);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 6);
            assert!(hand.iter().all(|at| *at < 64));
        }
        assert_eq!(deal(5, 3, 6).len(), 3);
    }

    #[tokio::test]
    async fn seats_are_counted_and_come_free() {
        let level = level(2, 0, 0);
        let first = Level::take(&level, 0, 1, SOON).await.unwrap();
        let _second = Level::take(&level, 0, 1, SOON).await.unwrap();
        assert!(Level::take(&level, 0, 1, SOON).await.is_err(), "no queue: rejected at once");
        drop(first);
        assert!(Level::take(&level, 0, 1, SOON).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_seat_or_gives_up() {
        let level = level(1, 4, 1);
        let first = Level::take(&level, 0, 1, SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, 0, 1, SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(Level::take(&level, 0, 1, SOON).await.is_err(), "the flow's queue is full");
        let other = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, 1, 1, SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(other.await.unwrap(), "another flow has another queue");
        let _held = Level::take(&level, 0, 1, SOON).await.unwrap();
        assert!(Level::take(&level, 1, 1, SOON).await.is_err(), "patience has an end");
    }

    #[tokio::test]
    async fn a_flood_does_not_keep_another_flow_from_its_turn() {
        let level = level(1, 2, 100);
        let held = Level::take(&level, 0, 1, SOON).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawn = |flow: u64| {
            let (level, order) = (level.clone(), order.clone());
            tokio::spawn(async move {
                let _taken = Level::take(&level, flow, 1, SOON).await.unwrap();
                order.lock().push(flow);
            })
        };
        let mut tasks: Vec<_> = (0..20).map(|_| spawn(0)).collect();
        tokio::task::yield_now().await;
        tasks.push(spawn(1));
        tokio::task::yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(order.lock().iter().position(|flow| *flow == 1).unwrap() <= 2);
    }

    #[tokio::test]
    async fn a_wide_request_takes_many_seats_and_is_not_passed_by() {
        let level = level(4, 4, 10);
        let narrow = Level::take(&level, 0, 1, SOON).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawn = |flow: u64, width: usize| {
            let (level, order) = (level.clone(), order.clone());
            tokio::spawn(async move {
                let _taken = Level::take(&level, flow, width, SOON).await.unwrap();
                order.lock().push(width);
            })
        };
        let wide = spawn(1, 4);
        tokio::task::yield_now().await;
        let later = spawn(2, 1);
        tokio::task::yield_now().await;
        assert!(order.lock().is_empty(), "three seats are free, and are kept for the wide one");
        drop(narrow);
        wide.await.unwrap();
        later.await.unwrap();
        assert_eq!(*order.lock(), [4, 1]);
        assert!(Level::take(&level, 0, 9, SOON).await.is_ok(), "one that is wider than the level runs alone");
    }

    #[tokio::test]
    async fn a_borrowed_seat_is_given_to_who_waits() {
        let level = level(1, 4, 10);
        let _held = Level::take(&level, 0, 1, SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, 0, 1, SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(level.wish(Instant::now()).unwrap().demand.most, 2);
        level.limit(2, 2.0);
        assert!(waiting.await.unwrap());
    }
}
