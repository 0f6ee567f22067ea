//! The order in which pods go when a resource is short.

use std::cmp::Reverse;

use super::Resource;

/// A pod as a candidate.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    /// Priority of the specification.
    pub priority: i32,
    /// Critical pods are not taken, nor those that end already.
    pub protected: bool,
    /// Use of the resource that is short.
    pub usage: i64,
    /// What it asked for of it; of storage, when inodes are short.
    pub request: i64,
    /// Its containers' part, for the message.
    pub consumers: Vec<Consumer>,
}

/// A container's use of the resource that is short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// What it uses.
    pub usage: i64,
    /// What it asked for.
    pub request: i64,
}

/// Orders the candidates, the one to take first in front: those over their request before those within it, lower
/// priority before higher, then by how far they are over. Process ids are not requested: priority and number decide.
pub fn rank(resource: Resource, candidates: &mut Vec<Candidate>) {
    candidates.retain(|candidate| !candidate.protected);
    candidates.sort_by_key(|candidate| {
        let over = candidate.usage.saturating_sub(candidate.request);
        let exceeds = match resource {
            Resource::Memory | Resource::Storage => over > 0,
            // No pod asks for inodes, so that each that has any exceeds what it asked for.
            Resource::Inodes => candidate.usage > 0,
            Resource::Pids => false,
        };
        (Reverse(exceeds), candidate.priority, Reverse(over))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greediest_goes_first() {
        let candidate = |uid: &str, priority, usage, request, protected| Candidate {
            uid: uid.to_owned(),
            priority,
            usage,
            request,
            protected,
            consumers: Vec::new(),
        };
        let all = [
            candidate("within", 0, 100, 200, false),
            candidate("nearly", 0, 190, 200, false),
            candidate("over", 0, 300, 200, false),
            candidate("important", 10, 900, 200, false),
            candidate("static", 0, 5000, 0, true),
            candidate("more", 0, 500, 200, false),
        ];
        let order = |resource| {
            let mut candidates = all.to_vec();
            rank(resource, &mut candidates);
            candidates.into_iter().map(|candidate| candidate.uid).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(Resource::Memory), "more over important nearly within");
        assert_eq!(order(Resource::Storage), "more over important nearly within");
        assert_eq!(order(Resource::Inodes), "more over nearly within important");
        assert_eq!(order(Resource::Pids), "more over nearly within important");
    }
}
