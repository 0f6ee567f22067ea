//! Which way a decision goes: all ways are followed over as many tokens as it takes until one is left.

use std::collections::{HashMap, HashSet};

use super::network::{Edge, Network, Role, StateId};
use crate::lex::{Kind, Token};

/// One way that is being followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    state: StateId,
    /// Which choice of the decision it began with.
    choice: usize,
    /// Where to go when the rule ends, an index into [`Stacks`].
    stack: usize,
    /// Whether it has left the rule that the decision belongs to.
    outside: bool,
}

/// Stacks of states that share their lower parts, so that equal ones have equal indices. Zero is the empty one.
#[derive(Default)]
struct Stacks {
    frames: Vec<(StateId, usize)>,
    known: HashMap<(StateId, usize), usize>,
}

impl Stacks {
    fn push(&mut self, state: StateId, below: usize) -> usize {
        *self.known.entry((state, below)).or_insert_with(|| {
            self.frames.push((state, below));
            self.frames.len()
        })
    }
}

/// The index of the edge to take from `decision`, or the token on which the last way ended.
pub(super) fn predict(
    network: &Network,
    decision: StateId,
    precedence: u32,
    tokens: &[Token],
    from: usize,
) -> Result<usize, usize> {
    let mut follow =
        Follow { network, precedence, first: true, stacks: Stacks::default(), seen: HashSet::new(), ways: Vec::new() };
    for (choice, edge) in network.state(decision).edges.iter().enumerate() {
        follow.close(Way { state: edge.target(), choice, stack: 0, outside: false });
    }
    follow.first = false;
    let mut at = from;
    loop {
        let token = tokens[at].kind;
        let before = std::mem::take(&mut follow.ways);
        follow.seen.clear();
        for way in &before {
            for edge in &network.state(way.state).edges {
                if let Edge::Tokens(set, to) = edge
                    && set.has(token)
                {
                    follow.close(Way { state: *to, ..*way });
                }
            }
        }
        if follow.ways.is_empty() {
            // A choice with which the decision's rule was complete leaves the fault to the rules around it.
            let complete = |way: &&Way| way.outside || network.state(way.state).role == Role::Stop && way.stack == 0;
            return before.iter().filter(complete).map(|way| way.choice).min().ok_or(at);
        }
        let least = follow.ways.iter().map(|way| way.choice).min().expect("there are ways");
        if follow.ways.iter().all(|way| way.choice == least) || token == Kind::End || is_ambiguous(&follow.ways) {
            return Ok(least);
        }
        at += 1;
    }
}

/// Whether several choices have come to the same place and no state is left that only one of them is in.
fn is_ambiguous(ways: &[Way]) -> bool {
    let mut places: HashMap<(StateId, usize), HashSet<usize>> = HashMap::new();
    let mut states: HashMap<StateId, HashSet<usize>> = HashMap::new();
    for way in ways {
        places.entry((way.state, way.stack)).or_default().insert(way.choice);
        states.entry(way.state).or_default().insert(way.choice);
    }
    places.values().any(|choices| choices.len() > 1) && states.values().all(|choices| choices.len() > 1)
}

struct Follow<'a> {
    network: &'a Network,
    precedence: u32,
    /// Before the first token: precedence is that of the rule being walked.
    first: bool,
    stacks: Stacks,
    seen: HashSet<Way>,
    ways: Vec<Way>,
}

impl Follow<'_> {
    /// Adds `way` and all that it leads to without a token.
    fn close(&mut self, way: Way) {
        if !self.seen.insert(way) {
            return;
        }
        let network = self.network;
        let state = network.state(way.state);
        if state.role == Role::Stop {
            if way.stack > 0 {
                let (state, below) = self.stacks.frames[way.stack - 1];
                self.close(Way { state, stack: below, ..way });
                return;
            }
            self.ways.push(way);
            for next in network.follows(state.rule) {
                self.close(Way { state: *next, outside: true, ..way });
            }
            return;
        }
        let mut waits = false;
        for edge in &state.edges {
            match edge {
                Edge::Empty(to) => self.close(Way { state: *to, ..way }),
                Edge::Precedence(binds, to) => {
                    if !self.first || way.outside || way.stack > 0 || *binds >= self.precedence {
                        self.close(Way { state: *to, ..way });
                    }
                }
                Edge::Tokens(..) => waits = true,
                Edge::Rule { rule, follow, .. } => {
                    let stack = self.stacks.push(*follow, way.stack);
                    self.close(Way { state: network.start(*rule), stack, ..way });
                }
            }
        }
        if waits {
            self.ways.push(way);
        }
    }
}
