//! A priority level at work: seats, queues, and who is next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// No seat, and no place to wait for one, or none came free in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// How a level is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Requests that run at one time; `None` for the exempt level.
    pub(super) seats: Option<usize>,
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
}

struct State {
    shape: Shape,
    running: usize,
    queues: Vec<VecDeque<oneshot::Sender<Taken>>>,
    /// The queue that is served next.
    turn: usize,
}

/// A seat that is taken; given to the next in turn when dropped.
pub(super) struct Taken(Arc<Level>);

impl Level {
    pub(super) fn new(name: &str, uid: &str, shape: Shape) -> Self {
        let state = State { shape, running: 0, queues: Vec::new(), turn: 0 };
        let level = Self { name: name.to_owned(), uid: uid.into(), state: Mutex::new(state) };
        level.reshape(shape);
        level
    }

    /// Goes on with another configuration. Who waits in a queue that is gone waits in the last one left.
    pub(super) fn reshape(&self, shape: Shape) {
        let mut state = self.state.lock();
        state.shape = shape;
        let count = shape.queues.max(1);
        let kept = count.min(state.queues.len());
        let displaced: Vec<_> = state.queues.split_off(kept).into_iter().flatten().collect();
        state.queues.resize_with(count, VecDeque::new);
        state.queues[count - 1].extend(displaced);
        state.turn = 0;
    }

    /// Takes a seat for a request of `flow`, waiting for at most `patience`. `None` where seats are not counted.
    pub(super) async fn take(level: &Arc<Self>, flow: u64, patience: Duration) -> Result<Option<Taken>, Full> {
        let waiting = {
            let mut state = level.state.lock();
            let Some(seats) = state.shape.seats else { return Ok(None) };
            if state.running < seats && state.queues.iter().all(VecDeque::is_empty) {
                state.running += 1;
                return Ok(Some(Taken(level.clone())));
            }
            state.enqueue(flow)?
        };
        // A seat that comes just too late is in the channel, and dropped with it.
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(taken)) => Ok(Some(taken)),
            _ => Err(Full),
        }
    }

    /// Hands free seats to those who wait, one queue after the other.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let free = state.shape.seats.is_none_or(|seats| state.running < seats);
                let Some(next) = free.then(|| state.next()).flatten() else { return };
                state.running += 1;
                next
            };
            // Sent without the lock: a seat that nobody waits for any more is dropped here, which comes back to this function.
            if let Err(taken) = next.send(Taken(self.clone())) {
                drop(taken);
                return;
            }
        }
    }
}

impl State {
    fn enqueue(&mut self, flow: u64) -> Result<oneshot::Receiver<Taken>, Full> {
        if self.shape.queues == 0 {
            return Err(Full);
        }
        // Who left does not count.
        let hand = deal(flow, self.queues.len(), self.shape.hand);
        for at in &hand {
            self.queues[*at].retain(|sender| !sender.is_closed());
        }
        let shortest = hand.into_iter().min_by_key(|at| self.queues[*at].len()).ok_or(Full)?;
        if self.queues[shortest].len() >= self.shape.length {
            return Err(Full);
        }
        let (sender, receiver) = oneshot::channel();
        self.queues[shortest].push_back(sender);
        Ok(receiver)
    }

    fn next(&mut self) -> Option<oneshot::Sender<Taken>> {
        for _ in 0..self.queues.len() {
            let at = self.turn % self.queues.len();
            self.turn = at + 1;
            while let Some(sender) = self.queues[at].pop_front() {
                if !sender.is_closed() {
                    return Some(sender);
                }
            }
        }
        None
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.dispatch();
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
        Arc::new(Level::new("l", "u", Shape { seats: Some(seats), queues, hand: 1, length }))
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
        let first = Level::take(&level, 0, SOON).await.unwrap();
        let _second = Level::take(&level, 0, SOON).await.unwrap();
        assert!(Level::take(&level, 0, SOON).await.is_err(), "no queue: rejected at once");
        drop(first);
        assert!(Level::take(&level, 0, SOON).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_next_seat_or_gives_up() {
        let level = level(1, 4, 1);
        let first = Level::take(&level, 0, SOON).await.unwrap();
        let waiting = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, 0, SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        assert!(Level::take(&level, 0, SOON).await.is_err(), "the flow's queue is full");
        let other = tokio::spawn({
            let level = level.clone();
            async move { Level::take(&level, 1, SOON).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(other.await.unwrap(), "another flow has another queue");
        let _held = Level::take(&level, 0, SOON).await.unwrap();
        assert!(Level::take(&level, 1, SOON).await.is_err(), "patience has an end");
    }

    #[tokio::test]
    async fn a_flood_does_not_keep_another_flow_from_its_turn() {
        let level = level(1, 2, 100);
        let held = Level::take(&level, 0, SOON).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let spawn = |flow: u64| {
            let (level, order) = (level.clone(), order.clone());
            tokio::spawn(async move {
                let _taken = Level::take(&level, flow, SOON).await.unwrap();
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
}
