//! A priority level at work: seats, queues, and who is next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{Histogram, IntGauge};
use tokio::sync::oneshot;

use super::borrowing::Wish;
use super::demand::{Demand, Integrator};
use super::executing::Executing;
use super::fair::{Queues, Waiting};
use super::retry::Rejections;
use super::width::Width;
use crate::request::RequestInfo;

/// Why a request gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// None is free, and the level does not queue.
    NoQueue,
    /// None is free, and the queues of the flow are full.
    Queue,
    /// None came free in time.
    Late,
}

impl Full {
    /// As metrics have it.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NoQueue => "concurrency-limit",
            Self::Queue => "queue-full",
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

/// What is known of a request in a level.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Name of its flow schema.
    pub(super) schema: Arc<str>,
    /// What tells its flow from others of the schema, as people read it.
    pub(super) distinguisher: String,
    /// The same as a number.
    pub(super) flow: u64,
    pub(super) user: String,
    pub(super) info: Arc<RequestInfo>,
    /// What it takes.
    pub(super) width: Width,
    pub(super) arrived: Timestamp,
    pub(super) counted: Counted,
}

/// Where the seats of a request are counted.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) executing: IntGauge,
    pub(super) waiting: IntGauge,
    /// Lengths of queues.
    pub(super) lengths: Histogram,
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
    fair: Queues,
    executing: Executing,
    totals: Totals,
}

/// Requests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    /// They waited too long, or their clients went meanwhile.
    pub(super) cancelled: u64,
}

/// Seats that are taken by a request; given to the next in turn when dropped.
pub(super) struct Taken {
    level: Arc<Level>,
    width: usize,
    /// Where they are counted.
    seats: IntGauge,
    /// Where the level knows the request by.
    slot: usize,
}

/// A request's place in a queue, which is given up when this is dropped.
struct Place<'a> {
    level: &'a Arc<Level>,
    queue: usize,
    id: u64,
}

impl Level {
    pub(super) fn new(name: &str, uid: &str, shape: Shape) -> Self {
        let now = Instant::now();
        let state = State {
            shape,
            limit: 0,
            running: 0,
            queued: 0,
            demand: Integrator::new(now),
            needed: Demand::default(),
            target: 0.0,
            fair: Queues::new(now),
            executing: Executing::default(),
            totals: Totals::default(),
        };
        let level = Self { name: name.to_owned(), uid: uid.into(), state: Mutex::new(state), rejections: Mutex::default() };
        level.reshape(shape);
        level
    }

    /// Goes on with another configuration. Who waits in a queue that is gone waits in the last one left.
    pub(super) fn reshape(&self, shape: Shape) {
        let mut state = self.state.lock();
        state.shape = shape;
        state.limit = shape.seats.unwrap_or_default();
        state.fair.resize(shape.queues);
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

    /// Figures for the metrics: seats by shares (twice, as there is an older name for them), seats there are now, least, most.
    pub(super) fn figures(&self) -> [usize; 5] {
        let state = self.state.lock();
        let Shape { seats, least, most, .. } = state.shape;
        let seats = seats.unwrap_or_default();
        [seats, seats, state.limit, least, most]
    }

    /// The time of its queues.
    pub(super) fn time(&self) -> f64 {
        self.state.lock().fair.time()
    }

    /// Whether it has more than one queue.
    pub(super) fn tells_flows_apart(&self) -> bool {
        self.state.lock().shape.queues > 1
    }

    /// Whether requests wait in it.
    pub(super) fn has_queues(&self) -> bool {
        let shape = self.state.lock().shape;
        shape.queues > 0 && shape.seats.is_some()
    }

    /// Shows the level as it is at this moment: what became of its requests, its queues, and who runs.
    pub(super) fn inspect<R>(&self, look: impl FnOnce(Totals, &Queues, &Executing) -> R) -> R {
        let state = self.state.lock();
        look(state.totals, &state.fair, &state.executing)
    }

    /// Takes seats for a request, waiting for at most `patience`.
    pub(super) async fn take(level: &Arc<Self>, ticket: Ticket, patience: Duration) -> Result<Taken, Full> {
        let (_place, waiting) = {
            let mut state = level.state.lock();
            let width = ticket.width.most();
            let queue = match state.shape.queues {
                0 => None,
                _ if state.shape.seats.is_none() => None,
                _ => {
                    let hand = state.shape.hand;
                    Some(state.fair.choose(ticket.flow, hand))
                }
            };
            if state.has_room(width) && state.fair.is_empty() {
                state.tick();
                if let Some(queue) = queue {
                    state.fair.started(queue, ticket.width);
                }
                return Ok(state.start(level, ticket, queue));
            }
            let full = match queue {
                None => Some(Full::NoQueue),
                Some(queue) => (state.fair.waiting(queue) >= state.shape.length).then_some(Full::Queue),
            };
            if let Some(full) = full {
                state.totals.rejected += 1;
                return Err(full);
            }
            let queue = queue.unwrap_or_default();
            let (sender, receiver) = oneshot::channel();
            state.tick();
            ticket.counted.waiting.add(seats(&ticket));
            let lengths = ticket.counted.lengths.clone();
            let id = state.fair.push(queue, ticket, sender);
            lengths.observe(state.fair.waiting(queue) as f64);
            state.queued += width;
            state.note();
            (Place { level, queue, id }, receiver)
        };
        // There may be room for it at once, when what has none is wider and would be done later.
        level.dispatch();
        // A seat that comes just too late is in the channel, and dropped with it.
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(Full::Late),
        }
    }

    /// Counts a request that was turned away, and tells after how many seconds it should come again.
    pub(super) fn rejected(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.rejections.lock().count(now.as_secs())
    }

    /// Hands free seats to those who wait.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let (sender, taken) = {
                let mut state = self.state.lock();
                let Some((queue, next)) = state.next() else { return };
                next.ticket.counted.waiting.sub(seats(&next.ticket));
                (next.sender, state.start(self, next.ticket, Some(queue)))
            };
            // Sent without the lock: a seat that nobody waits for any more is dropped here, which comes back to this function.
            if let Err(taken) = sender.send(taken) {
                drop(taken);
                return;
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.level.state.lock();
        state.tick();
        // Who has a seat is in no queue any more.
        let Some(gone) = state.fair.remove(self.queue, self.id) else { return };
        state.queued -= gone.ticket.width.most();
        gone.ticket.counted.waiting.sub(seats(&gone.ticket));
        // Both count as rejected too; whether the client or its time has gone is one to who looks at the table.
        state.totals.rejected += 1;
        state.totals.cancelled += 1;
        state.note();
    }
}

impl State {
    /// A request that is wider than all there is runs alone.
    fn has_room(&self, width: usize) -> bool {
        self.shape.seats.is_none() || self.running + width <= self.limit || (self.running == 0 && self.limit > 0)
    }

    /// A request runs from now on, as one of `queue`.
    fn start(&mut self, level: &Arc<Level>, ticket: Ticket, queue: Option<usize>) -> Taken {
        let width = ticket.width.most();
        let gauge = ticket.counted.executing.clone();
        gauge.add(seats(&ticket));
        self.running += width;
        self.totals.dispatched += 1;
        let slot = self.executing.add(ticket, queue, self.fair.generation());
        self.note();
        Taken { level: level.clone(), width, seats: gauge, slot }
    }

    /// Takes in that other seats are taken or waited for.
    fn note(&mut self) {
        if self.shape.seats.is_some() {
            self.demand.set(self.running + self.queued, Instant::now());
        }
    }

    /// Lets the time of the queues go on, before anything about them changes.
    fn tick(&mut self) {
        if self.shape.queues > 0 {
            self.fair.advance(Instant::now(), self.running + self.queued, self.limit);
        }
    }

    /// The next request in turn and its queue, if there is room for it. When there is none everyone waits: a wide request must
    /// not be passed by narrow ones for ever.
    fn next(&mut self) -> Option<(usize, Waiting)> {
        let queue = self.fair.first()?;
        let width = self.fair.front(queue)?;
        if !self.has_room(width) {
            return None;
        }
        self.tick();
        self.queued -= width;
        Some((queue, self.fair.pop(queue)?))
    }
}

impl Taken {
    /// Gives all but `width` seats back.
    pub(super) fn shrink(&mut self, width: usize) {
        let back = self.width.saturating_sub(width);
        if back == 0 {
            return;
        }
        self.width -= back;
        self.seats.sub(i64::try_from(back).unwrap_or_default());
        let mut state = self.level.state.lock();
        state.running -= back;
        state.note();
        drop(state);
        self.level.dispatch();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.sub(i64::try_from(self.width).unwrap_or_default());
        let mut state = self.level.state.lock();
        state.tick();
        state.running -= self.width;
        if let Some(ended) = state.executing.remove(self.slot)
            && let Some(queue) = ended.queue.filter(|_| ended.generation == state.fair.generation())
        {
            let width = &ended.ticket.width;
            let worked = ended.started.elapsed().as_secs_f64() * width.running as f64 + width.later();
            state.fair.ended(queue, width.most(), worked - width.work());
        }
        state.note();
        let is_counted = state.shape.seats.is_some();
        drop(state);
        if is_counted {
            self.level.dispatch();
        }
    }
}

/// The seats that a request waits for, for a gauge.
fn seats(ticket: &Ticket) -> i64 {
    i64::try_from(ticket.width.most()).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    impl Default for Counted {
        fn default() -> Self {
            let gauge = || IntGauge::new("seats", "seats").unwrap();
            let lengths = Histogram::with_opts(prometheus::HistogramOpts::new("lengths", "lengths")).unwrap();
            Self { executing: gauge(), waiting: gauge(), lengths }
        }
    }

    fn level(seats: usize, queues: usize, length: usize) -> Arc<Level> {
        Arc::new(Level::new("l", "u", Shape { seats: Some(seats), least: seats, most: seats, queues, hand: 1, length }))
    }

    pub(in super::super) fn ticket(flow: u64, running: usize) -> Ticket {
        Ticket {
            schema: "s".into(),
            distinguisher: String::new(),
            flow,
            user: String::new(),
            info: Arc::default(),
            width: Width { running, after: None },
            arrived: Timestamp::UNIX_EPOCH,
            counted: Counted::default(),
        }
    }

    #[tokio::test]
    async fn seats_are_counted_and_come_free() {
        let level = level(2, 0, 0);
        let first = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let _second = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        assert!(Level::take(&level, ticket(0, 1), SOON).await.is_err(), "no queue: rejected at once");
        drop(first);
        assert!(Level::take(&level, ticket(0, 1), SOON).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_seat_or_gives_up() {
        let level = level(1, 4, 1);
        let first = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, ticket(0, 1), SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(Level::take(&level, ticket(0, 1), SOON).await.is_err(), "the flow's queue is full");
        let other = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, ticket(1, 1), SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(other.await.unwrap(), "another flow has another queue");
        let _held = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        assert!(Level::take(&level, ticket(1, 1), SOON).await.is_err(), "patience has an end");
    }

    #[tokio::test]
    async fn a_flood_does_not_keep_another_flow_from_its_turn() {
        let level = level(1, 2, 100);
        let held = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawn = |flow: u64| {
            let (level, order) = (level.clone(), order.clone());
            tokio::spawn(async move {
                let _taken = Level::take(&level, ticket(flow, 1), SOON).await.unwrap();
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
    async fn a_wide_request_takes_many_seats_and_waits_while_others_are_done_before_it() {
        let level = level(4, 4, 10);
        let held = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let wide = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, ticket(1, 4), SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        let narrow = Level::take(&level, ticket(2, 1), SOON).await.unwrap();
        drop(held);
        tokio::task::yield_now().await;
        assert!(!wide.is_finished(), "the narrow one still has a seat of the four");
        drop(narrow);
        assert!(wide.await.unwrap());
        assert!(Level::take(&level, ticket(0, 9), SOON).await.is_ok(), "one that is wider than the level runs alone");
    }

    #[tokio::test]
    async fn who_goes_while_waiting_gives_up_its_place() {
        let level = level(1, 1, 1);
        let _held = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, ticket(0, 1), SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(Level::take(&level, ticket(0, 1), SOON).await.err(), Some(Full::Queue));
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        let totals = level.inspect(|totals, queues, executing| {
            assert_eq!((queues.waiting(0), executing.iter().count()), (0, 1));
            totals
        });
        assert_eq!(totals, Totals { dispatched: 1, rejected: 2, cancelled: 1 });
    }

    #[tokio::test]
    async fn a_borrowed_seat_is_given_to_who_waits() {
        let level = level(1, 4, 10);
        let _held = Level::take(&level, ticket(0, 1), SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, ticket(0, 1), SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert_eq!(level.wish(Instant::now()).unwrap().demand.most, 2);
        level.limit(2, 2.0);
        assert!(waiting.await.unwrap());
    }
}
