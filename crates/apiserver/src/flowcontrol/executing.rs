//! The requests of a level that run, so that people can see them.

use std::time::Instant;

use jiff::Timestamp;

use super::queues::Ticket;

/// Requests that run, each in a slot of its own. Slots are used again: to begin and to end costs no search.
#[derive(Default)]
pub(super) struct Executing {
    slots: Vec<Option<Running>>,
    free: Vec<usize>,
}

/// A request that runs.
pub(super) struct Running {
    pub(super) ticket: Ticket,
    /// The queue that it came from, and the arrangement of queues that it was counted in.
    pub(super) queue: Option<usize>,
    pub(super) generation: u64,
    pub(super) started: Instant,
    pub(super) since: Timestamp,
}

impl Executing {
    /// A request begins; returns its slot.
    pub(super) fn add(&mut self, ticket: Ticket, queue: Option<usize>, generation: u64) -> usize {
        let running = Running { ticket, queue, generation, started: Instant::now(), since: Timestamp::now() };
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(running);
                slot
            }
            None => {
                self.slots.push(Some(running));
                self.slots.len() - 1
            }
        }
    }

    /// The request in a slot ends.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Running> {
        let ended = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(ended)
    }

    /// Those that run.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Running> {
        self.slots.iter().flatten()
    }
}
