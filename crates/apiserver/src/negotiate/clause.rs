//! What an `Accept` header asks for: its alternatives, read and put in order as upstream does.

use super::{Encoding, Endpoint, MetaVersion, content_type_of};

/// What may be asked for besides a media type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Restrictions {
    /// Of a resource: its shapes, and the version of the options.
    Resource,
    /// Of what is not stored: the same, without tables.
    Action,
    /// Of the lists of groups: everything about them at once (KEP-3352).
    Discovery,
    /// Of everything else, errors above all: nothing.
    Plain,
}

impl Restrictions {
    pub(super) fn of(endpoint: Endpoint) -> Self {
        if endpoint == Endpoint::Action { Self::Action } else { Self::Resource }
    }

    fn allow_shapes(self) -> bool {
        matches!(self, Self::Resource | Self::Action)
    }
}

/// What the parameters of a clause ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    Table(MetaVersion),
    Partial(MetaVersion),
    PartialList(MetaVersion),
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`
    Discovery,
}

/// The first clause that can be fulfilled, in the client's order of preference.
pub(super) fn choose(accept: &str, restrictions: Restrictions) -> Option<(Clause<'_>, Encoding, Wanted)> {
    if accept.is_empty() {
        return Some((Clause { kind: "*", sub: "*", parameters: Vec::new(), quality: 1.0 }, Encoding::Json, Wanted::Whole));
    }
    clauses(accept).into_iter().find_map(|clause| {
        let (encoding, wanted) = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf]
            .into_iter()
            .filter(|encoding| clause.fits(*encoding))
            .find_map(|encoding| Some((encoding, clause.wants(encoding, restrictions)?)))?;
        Some((clause, encoding, wanted))
    })
}

/// The first of `offers`, subtypes of `application` and what they stand for, that fits the best clause of an `Accept` header
/// that any of them fits.
#[must_use]
pub fn choose_offer<T: Copy>(accept: &str, offers: &[(&str, T)]) -> Option<T> {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    clauses(accept).into_iter().find_map(|clause| {
        let is_kind = matches!(clause.kind, "*" | "application");
        offers.iter().find(|(sub, _)| is_kind && (clause.sub == "*" || clause.sub == *sub)).map(|(_, offer)| *offer)
    })
}

/// Whether `Accept` says something, but nothing that could be a media type.
pub fn names_no_type(accept: &str) -> bool {
    !accept.is_empty() && clauses(accept).is_empty()
}

/// One alternative of an `Accept` header.
pub(super) struct Clause<'a> {
    pub(super) kind: &'a str,
    pub(super) sub: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut pieces = text.split(';');
        let media = pieces.next().unwrap_or_default();
        let (kind, rest) = media.split_once('/').unwrap_or((media, ""));
        let (sub, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, sub) = match (kind.trim_matches(' '), sub) {
            _ if !rest.is_empty() => return None,
            ("*", "") => ("*", "*"),
            (_, "") => return None,
            (kind, sub) => (kind, sub.trim_matches(' ')),
        };
        let mut clause = Self { kind, sub, parameters: Vec::new(), quality: 1.0 };
        for (key, value) in pieces.filter_map(|piece| piece.split_once('=')) {
            // A parameter without a value is none, and neither is one with two.
            let (value, more) = value.split_once('=').unwrap_or((value, ""));
            match key.trim_matches(' ') {
                _ if value.is_empty() || !more.is_empty() => {}
                "q" => clause.quality = value.parse().unwrap_or(0.0),
                key => clause.parameters.push((key, value.trim_matches(' '))),
            }
        }
        Some(clause)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        // Of a parameter that is there twice the last one counts.
        self.parameters.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// Whether a parameter has a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| !value.is_empty())
    }

    pub(super) fn fits(&self, encoding: Encoding) -> bool {
        let sub = content_type_of(encoding).trim_start_matches("application/");
        match self.kind {
            "*" => self.sub == "*",
            "application" => self.sub == "*" || self.sub == sub,
            _ => false,
        }
    }

    /// What `as`, `g` and `v` ask for; `None` when it cannot be had in this encoding.
    fn wants(&self, encoding: Encoding, restrictions: Restrictions) -> Option<Wanted> {
        let given = |name: &str| self.parameter(name).filter(|value| !value.is_empty());
        if given("stream").is_some_and(|stream| stream != "watch" || encoding == Encoding::Yaml) {
            return None;
        }
        if given("sv").is_some_and(|version| version != "v1" || !restrictions.allow_shapes()) {
            return None;
        }
        if !["as", "g", "v"].iter().any(|name| self.parameter(name).is_some()) {
            return Some(Wanted::Whole);
        }
        let meta = match (self.parameter("g"), self.parameter("v")) {
            (Some("apidiscovery.k8s.io"), Some("v2")) if restrictions == Restrictions::Discovery => {
                return (self.parameter("as") == Some("APIGroupDiscoveryList")).then_some(Wanted::Discovery);
            }
            (Some("meta.k8s.io"), Some("v1")) => MetaVersion::V1,
            (Some("meta.k8s.io"), Some("v1beta1")) => MetaVersion::V1beta1,
            _ => return None,
        };
        match self.parameter("as")? {
            _ if !restrictions.allow_shapes() => None,
            "Table" if restrictions == Restrictions::Action => None,
            "Table" => (encoding != Encoding::Protobuf).then_some(Wanted::Table(meta)),
            "PartialObjectMetadata" => Some(Wanted::Partial(meta)),
            "PartialObjectMetadataList" => Some(Wanted::PartialList(meta)),
            _ => None,
        }
    }

    /// Whether it comes before another one: by quality, and what is named before what is not.
    fn is_before(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.kind != "*" && other.kind == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The alternatives of an `Accept` header, best first.
pub(super) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    /// Up to here the order is upstream's even where its rule contradicts itself (`*/*;q=1, a/b;q=0.1`).
    const SMALL: usize = 12;
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::read).collect();
    if clauses.len() > SMALL {
        let wild = |clause: &Clause<'_>| (clause.kind == "*", clause.sub == "*");
        clauses.sort_by(|a, b| wild(a).cmp(&wild(b)).then(b.quality.total_cmp(&a.quality)));
        return clauses;
    }
    for at in 1..clauses.len() {
        let mut at = at;
        while at > 0 && clauses[at].is_before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}
