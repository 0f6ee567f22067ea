//! Unified diffs with three lines of context, made by Ratcliff and Obershelp's matching as Python's `difflib` does it, with its
//! rule that a line found very often in a long text is no anchor: messages must come out the same.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::ops::Range;

const CONTEXT: usize = 3;

/// The unified diff of two texts, without file headers; empty when they are equal.
pub(super) fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let edits = Matcher::new(&a, &b).edits();
    let mut out = String::new();
    for hunk in hunks(&edits) {
        let (first, last) = (&hunk[0], &hunk[hunk.len() - 1]);
        let range = |start: usize, end: usize| match end - start {
            1 => (start + 1).to_string(),
            0 => format!("{start},0"),
            length => format!("{},{length}", start + 1),
        };
        let old = range(first.a.start, last.a.end);
        let new = range(first.b.start, last.b.end);
        let _ = writeln!(out, "@@ -{old} +{new} @@");
        for edit in &hunk {
            if edit.equal {
                for line in &a[edit.a.clone()] {
                    let _ = writeln!(out, " {line}");
                }
            } else {
                for line in &a[edit.a.clone()] {
                    let _ = writeln!(out, "-{line}");
                }
                for line in &b[edit.b.clone()] {
                    let _ = writeln!(out, "+{line}");
                }
            }
        }
    }
    out
}

#[derive(Clone, Debug)]
struct Edit {
    equal: bool,
    a: Range<usize>,
    b: Range<usize>,
}

/// Groups edits with their context; far apart ones come into different hunks.
fn hunks(edits: &[Edit]) -> Vec<Vec<Edit>> {
    let mut hunks = Vec::new();
    let mut hunk: Vec<Edit> = Vec::new();
    for (i, edit) in edits.iter().enumerate() {
        if !edit.equal {
            hunk.push(edit.clone());
            continue;
        }
        let tail = |edit: &Edit| Edit {
            equal: true,
            a: edit.a.end.saturating_sub(CONTEXT).max(edit.a.start)..edit.a.end,
            b: edit.b.end.saturating_sub(CONTEXT).max(edit.b.start)..edit.b.end,
        };
        let head = |edit: &Edit| Edit {
            equal: true,
            a: edit.a.start..(edit.a.start + CONTEXT).min(edit.a.end),
            b: edit.b.start..(edit.b.start + CONTEXT).min(edit.b.end),
        };
        let (is_first, is_last) = (i == 0, i + 1 == edits.len());
        if is_first {
            hunk.push(tail(edit));
        } else if is_last {
            hunk.push(head(edit));
        } else if edit.a.len() > 2 * CONTEXT {
            hunk.push(head(edit));
            hunks.push(std::mem::take(&mut hunk));
            hunk.push(tail(edit));
        } else {
            hunk.push(edit.clone());
        }
    }
    if hunk.iter().any(|edit| !edit.equal) {
        hunks.push(hunk);
    }
    hunks
}

struct Matcher<'a> {
    a: &'a [&'a str],
    b: &'a [&'a str],
    /// Where each line of `b` is, but for the too popular ones.
    places: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    fn new(a: &'a [&'a str], b: &'a [&'a str]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, line) in b.iter().enumerate() {
            places.entry(line).or_default().push(i);
        }
        if b.len() >= 200 {
            let most = b.len() / 100 + 1;
            let popular: HashSet<&str> = places.iter().filter(|(_, at)| at.len() > most).map(|(line, _)| *line).collect();
            places.retain(|line, _| !popular.contains(line));
        }
        Self { a, b, places }
    }

    /// The longest run of lines in both ranges, the first of several, widened by equal popular lines on both sides.
    fn longest(&self, a: &Range<usize>, b: &Range<usize>) -> (usize, usize, usize) {
        let (mut best_a, mut best_b, mut best) = (a.start, b.start, 0);
        let mut lengths: HashMap<usize, usize> = HashMap::new();
        for i in a.clone() {
            let mut next = HashMap::new();
            for &j in self.places.get(self.a[i]).map_or(&[][..], Vec::as_slice) {
                if j < b.start {
                    continue;
                }
                if j >= b.end {
                    break;
                }
                let length = j.checked_sub(1).and_then(|j| lengths.get(&j)).copied().unwrap_or_default() + 1;
                next.insert(j, length);
                if length > best {
                    (best_a, best_b, best) = (i + 1 - length, j + 1 - length, length);
                }
            }
            lengths = next;
        }
        while best_a > a.start && best_b > b.start && self.a[best_a - 1] == self.b[best_b - 1] {
            (best_a, best_b, best) = (best_a - 1, best_b - 1, best + 1);
        }
        while best_a + best < a.end && best_b + best < b.end && self.a[best_a + best] == self.b[best_b + best] {
            best += 1;
        }
        (best_a, best_b, best)
    }

    fn blocks(&self) -> Vec<(usize, usize, usize)> {
        let mut blocks = Vec::new();
        let mut open = vec![(0..self.a.len(), 0..self.b.len())];
        while let Some((a, b)) = open.pop() {
            let (i, j, length) = self.longest(&a, &b);
            if length == 0 {
                continue;
            }
            blocks.push((i, j, length));
            open.push((a.start..i, b.start..j));
            open.push((i + length..a.end, j + length..b.end));
        }
        blocks.sort_unstable();
        blocks
    }

    fn edits(&self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let (mut i, mut j) = (0, 0);
        for (a, b, length) in self.blocks().into_iter().chain([(self.a.len(), self.b.len(), 0)]) {
            if i < a || j < b {
                edits.push(Edit { equal: false, a: i..a, b: j..b });
            }
            if length > 0 {
                match edits.last_mut().filter(|edit| edit.equal && edit.a.end == a && edit.b.end == b) {
                    Some(before) => (before.a.end, before.b.end) = (a + length, b + length),
                    None => edits.push(Edit { equal: true, a: a..a + length, b: b..b + length }),
                }
            }
            (i, j) = (a + length, b + length);
        }
        edits
    }
}
