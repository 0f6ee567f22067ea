//! Eviction under pressure: when memory, disk or process ids run short, the node says so in its conditions, gives free what
//! nobody needs, and takes pods off one by one. All of it here is pure: [`State`] keeps what has to be known of the past,
//! [`rank`] orders the pods, [`message`] words the end of one.

mod flags;
mod message;
mod rank;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

pub use flags::{FlagError, HARD, parse, thresholds};
pub use message::{annotations, message};
pub use rank::{Candidate, Consumer, rank};
pub use state::{State, distance, met};

/// A signal and the amount below which something has to happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// `memory.available`, `nodefs.available`, `nodefs.inodesFree`, `imagefs.available`, `imagefs.inodesFree`, `containerfs.available`,
    /// `containerfs.inodesFree` or `pid.available`.
    pub signal: String,
    /// The amount.
    pub value: Amount,
    /// How long it must last; zero is a hard threshold.
    pub grace: Duration,
    /// How far above the amount the signal must come before the threshold counts as resolved.
    pub min_reclaim: Option<Amount>,
}

/// An absolute amount, or a part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes or a number.
    Absolute(i64),
    /// Between 0 and 1.
    Part(f64),
}

impl Amount {
    /// The amount for a capacity.
    #[must_use]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Part(part) => (capacity as f64 * part) as i64,
        }
    }
}

/// Which resources are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Space or inodes on the node's file systems.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

impl Pressure {
    /// Whether anything is short.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// The names of the conditions that hold, in brackets as Go prints a list.
    #[must_use]
    pub fn conditions(self) -> String {
        let all = [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.pid, "PIDPressure")];
        let names: Vec<&str> = all.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect();
        format!("[{}]", names.join(" "))
    }
}

/// A reading of one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// As in [`Threshold`].
    pub signal: &'static str,
    /// What is left.
    pub available: i64,
    /// All there is.
    pub capacity: i64,
}

/// What a signal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Bytes on the node's file systems.
    Storage,
    /// Inodes on the node's file systems.
    Inodes,
    /// Process ids.
    Pids,
}

impl Resource {
    /// The resource of a signal.
    #[must_use]
    pub fn of(signal: &str) -> Option<Self> {
        Some(match signal {
            "memory.available" => Self::Memory,
            "nodefs.available" | "imagefs.available" | "containerfs.available" => Self::Storage,
            "nodefs.inodesFree" | "imagefs.inodesFree" | "containerfs.inodesFree" => Self::Inodes,
            "pid.available" => Self::Pids,
            _ => return None,
        })
    }

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Storage => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// Whether images and ended containers that nobody needs take of it.
    #[must_use]
    pub const fn is_disk(self) -> bool {
        matches!(self, Self::Storage | Self::Inodes)
    }
}

impl Threshold {
    /// Upstream's hard thresholds.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let none = BTreeMap::new();
        let all = parse(HARD, '<').and_then(|hard| thresholds(&hard, &none, &none, &none));
        all.expect("the defaults are well formed")
    }

    /// The amount for a capacity.
    #[must_use]
    pub fn amount(&self, capacity: i64) -> i64 {
        self.value.of(capacity)
    }

    /// Whether pods go at once.
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}
