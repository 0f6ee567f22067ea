//! Seats that stay taken for a moment after their request was answered.

use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use corten_task::Tasks;

use super::queues::Taken;

/// Hands seats back when their time has come.
#[derive(Clone, Default)]
pub(super) struct Lingering(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<BinaryHeap<Late>>,
    changed: Notify,
}

/// Seats until a moment; the earliest is the greatest.
struct Late {
    until: Instant,
    taken: Taken,
}

impl Lingering {
    /// Starts handing seats back.
    pub(super) fn start(tasks: &Tasks) -> Self {
        let lingering = Self::default();
        let shared = lingering.0.clone();
        tasks.spawn("late seats", async move { shared.run().await });
        lingering
    }

    /// Keeps seats until a moment.
    pub(super) fn keep(&self, taken: Taken, until: Instant) {
        let mut waiting = self.0.waiting.lock();
        let is_first = waiting.peek().is_none_or(|first| until < first.until);
        waiting.push(Late { until, taken });
        drop(waiting);
        if is_first {
            self.0.changed.notify_one();
        }
    }
}

impl Shared {
    async fn run(&self) {
        loop {
            let next = self.waiting.lock().peek().map(|late| late.until);
            match next {
                None => self.changed.notified().await,
                Some(until) => tokio::select! {
                    () = tokio::time::sleep_until(until) => self.release(Instant::now()),
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    fn release(&self, now: Instant) {
        loop {
            let mut waiting = self.waiting.lock();
            if waiting.peek().is_none_or(|late| late.until > now) {
                return;
            }
            let late = waiting.pop();
            // Without the lock: whoever gets the seats may hand others in.
            drop(waiting);
            drop(late.map(|late| late.taken));
        }
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.until.cmp(&self.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::queues::tests::ticket;
    use super::super::queues::{Level, Shape};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn seats_come_free_when_their_time_has_come() {
        let tasks = Tasks::root("test");
        let lingering = Lingering::start(&tasks);
        let shape = Shape { seats: Some(3), least: 3, most: 3, queues: 1, hand: 1, length: 10 };
        let level = Arc::new(Level::new("l", "u", shape));
        let soon = Duration::from_secs(10);
        let mut wide = Level::take(&level, ticket(0, 3), soon).await.ok().unwrap();
        wide.shrink(2);
        let _narrow = Level::take(&level, ticket(0, 1), soon).await.ok().unwrap();
        let begun = Instant::now();
        lingering.keep(wide, begun + Duration::from_millis(20));
        assert!(Level::take(&level, ticket(0, 2), soon).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_millis(20));
        tasks.stop().await;
    }
}
