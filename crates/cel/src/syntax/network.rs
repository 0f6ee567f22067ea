//! CEL's grammar as a network of states (ANTLR's ATN).

use crate::lex::Kind;

pub(super) type StateId = usize;

/// A set of tokens; it may also say that nothing at all may come (the rule can end here).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Set(u64);

const EMPTY: u64 = 1 << 63;

impl Set {
    pub(super) const NONE: Self = Self(0);

    fn of(kinds: &[Kind]) -> Self {
        Self(kinds.iter().fold(0, |set, kind| set | 1 << *kind as u64))
    }

    pub(super) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u64 != 0
    }

    pub(super) fn may_be_empty(self) -> bool {
        self.0 & EMPTY != 0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self((self.0 | other.0) & !EMPTY)
    }

    /// As messages list it.
    pub(super) fn shown(self) -> String {
        const ALL: [Kind; 36] = [
            Kind::End,
            Kind::Equals,
            Kind::NotEquals,
            Kind::In,
            Kind::Less,
            Kind::LessEquals,
            Kind::GreaterEquals,
            Kind::Greater,
            Kind::And,
            Kind::Or,
            Kind::OpenBracket,
            Kind::CloseBracket,
            Kind::OpenBrace,
            Kind::CloseBrace,
            Kind::OpenParen,
            Kind::CloseParen,
            Kind::Dot,
            Kind::Comma,
            Kind::Minus,
            Kind::Not,
            Kind::Question,
            Kind::Colon,
            Kind::Plus,
            Kind::Star,
            Kind::Slash,
            Kind::Percent,
            Kind::True,
            Kind::False,
            Kind::Null,
            Kind::Float,
            Kind::Int,
            Kind::Uint,
            Kind::String,
            Kind::Bytes,
            Kind::Identifier,
            Kind::Escaped,
        ];
        let names: Vec<&str> = ALL.into_iter().filter(|kind| self.has(*kind)).map(Kind::name).collect();
        match names.as_slice() {
            [] => "{}".to_owned(),
            [one] => (*one).to_owned(),
            many => format!("{{{}}}", many.join(", ")),
        }
    }
}

/// What a state is for; the strategy for faults depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    BlockStart,
    StarEntry,
    StarBack,
    PlusStart,
    PlusBack,
    Stop,
}

/// Where a state leads.
pub(super) enum Edge {
    Empty(StateId),
    Tokens(Set, StateId),
    Rule {
        rule: usize,
        precedence: u32,
        follow: StateId,
    },
    /// Only when operators that bind as tightly may be taken.
    Precedence(u32, StateId),
}

impl Edge {
    pub(super) fn target(&self) -> StateId {
        match self {
            Self::Empty(to) | Self::Tokens(_, to) | Self::Precedence(_, to) | Self::Rule { follow: to, .. } => *to,
        }
    }
}

pub(super) struct State {
    pub(super) role: Role,
    pub(super) rule: usize,
    pub(super) edges: Vec<Edge>,
}

impl State {
    pub(super) fn is_decision(&self) -> bool {
        self.edges.len() > 1
    }
}

/// The network: its states, and each rule's first and last one.
pub(super) struct Network {
    states: Vec<State>,
    rules: Vec<(StateId, StateId)>,
    /// Per rule, the states that follow where it is used.
    follows: Vec<Vec<StateId>>,
    /// Per state, the tokens that may come as far as its rule tells.
    firsts: Vec<Set>,
    /// Per rule, the tokens that may come after it, wherever it is used.
    after: Vec<Set>,
}

/// A piece of a rule.
enum Part {
    Token(Kind),
    OneOf(&'static [Kind]),
    Rule(Name, u32),
    Seq(Vec<Part>),
    Alt(Vec<Part>),
    Opt(Box<Part>),
    Star(Box<Part>),
    Plus(Box<Part>),
    Binds(u32),
}

#[derive(Clone, Copy)]
enum Name {
    Start,
    Expr,
    Or,
    And,
    Relation,
    Calc,
    Unary,
    Member,
    Primary,
    Arguments,
    Elements,
    Fields,
    Field,
    Entries,
    Word,
    Element,
    Literal,
}

const NAMES: [Name; 17] = [
    Name::Start,
    Name::Expr,
    Name::Or,
    Name::And,
    Name::Relation,
    Name::Calc,
    Name::Unary,
    Name::Member,
    Name::Primary,
    Name::Arguments,
    Name::Elements,
    Name::Fields,
    Name::Field,
    Name::Entries,
    Name::Word,
    Name::Element,
    Name::Literal,
];

fn definition(name: Name) -> Part {
    use Kind::{
        Bytes, CloseBrace, CloseBracket, CloseParen, Colon, Comma, Dot, End, Equals, Escaped, False, Float, Greater,
        GreaterEquals, Identifier, In, Int, Less, LessEquals, Minus, Not, NotEquals, Null, OpenBrace, OpenBracket, OpenParen,
        Percent, Plus as Add, Question, Slash, Star as Times, String, True, Uint,
    };
    use Name as N;
    use Part::{Alt, Binds, OneOf, Opt, Plus, Rule, Seq, Star, Token};
    let rule = |name: Name| Rule(name, 0);
    let opt = |part: Part| Opt(Box::new(part));
    let star = |part: Part| Star(Box::new(part));
    let plus = |part: Part| Plus(Box::new(part));
    match name {
        N::Start => Seq(vec![rule(N::Expr), Token(End)]),
        N::Expr => Seq(vec![rule(N::Or), opt(Seq(vec![Token(Question), rule(N::Or), Token(Colon), rule(N::Expr)]))]),
        N::Or => Seq(vec![rule(N::And), star(Seq(vec![Token(Kind::Or), rule(N::And)]))]),
        N::And => Seq(vec![rule(N::Relation), star(Seq(vec![Token(Kind::And), rule(N::Relation)]))]),
        N::Relation => Seq(vec![
            rule(N::Calc),
            star(Seq(vec![
                Binds(1),
                OneOf(&[Less, LessEquals, GreaterEquals, Greater, Equals, NotEquals, In]),
                Rule(N::Relation, 2),
            ])),
        ]),
        N::Calc => Seq(vec![
            rule(N::Unary),
            star(Alt(vec![
                Seq(vec![Binds(2), OneOf(&[Times, Slash, Percent]), Rule(N::Calc, 3)]),
                Seq(vec![Binds(1), OneOf(&[Add, Minus]), Rule(N::Calc, 2)]),
            ])),
        ]),
        N::Unary => Alt(vec![
            rule(N::Member),
            Seq(vec![plus(Token(Not)), rule(N::Member)]),
            Seq(vec![plus(Token(Minus)), rule(N::Member)]),
        ]),
        N::Member => Seq(vec![
            rule(N::Primary),
            star(Alt(vec![
                Seq(vec![Binds(3), Token(Dot), opt(Token(Question)), rule(N::Word)]),
                Seq(vec![Binds(2), Token(Dot), Token(Identifier), Token(OpenParen), opt(rule(N::Arguments)), Token(CloseParen)]),
                Seq(vec![Binds(1), Token(OpenBracket), opt(Token(Question)), rule(N::Expr), Token(CloseBracket)]),
            ])),
        ]),
        N::Primary => Alt(vec![
            Seq(vec![opt(Token(Dot)), Token(Identifier)]),
            Seq(vec![opt(Token(Dot)), Token(Identifier), Token(OpenParen), opt(rule(N::Arguments)), Token(CloseParen)]),
            Seq(vec![Token(OpenParen), rule(N::Expr), Token(CloseParen)]),
            Seq(vec![Token(OpenBracket), opt(rule(N::Elements)), opt(Token(Comma)), Token(CloseBracket)]),
            Seq(vec![Token(OpenBrace), opt(rule(N::Entries)), opt(Token(Comma)), Token(CloseBrace)]),
            Seq(vec![
                opt(Token(Dot)),
                Token(Identifier),
                star(Seq(vec![Token(Dot), Token(Identifier)])),
                Token(OpenBrace),
                opt(rule(N::Fields)),
                opt(Token(Comma)),
                Token(CloseBrace),
            ]),
            rule(N::Literal),
        ]),
        N::Arguments => Seq(vec![rule(N::Expr), star(Seq(vec![Token(Comma), rule(N::Expr)]))]),
        N::Elements => Seq(vec![rule(N::Element), star(Seq(vec![Token(Comma), rule(N::Element)]))]),
        N::Fields => {
            let field = || [rule(N::Field), Token(Colon), rule(N::Expr)];
            let more = [Token(Comma)].into_iter().chain(field()).collect();
            Seq(field().into_iter().chain([star(Seq(more))]).collect())
        }
        N::Field => Seq(vec![opt(Token(Question)), rule(N::Word)]),
        N::Entries => {
            let entry = || [rule(N::Element), Token(Colon), rule(N::Expr)];
            let more = [Token(Comma)].into_iter().chain(entry()).collect();
            Seq(entry().into_iter().chain([star(Seq(more))]).collect())
        }
        N::Word => Alt(vec![Token(Identifier), Token(Escaped)]),
        N::Element => Seq(vec![opt(Token(Question)), rule(N::Expr)]),
        N::Literal => Alt(vec![
            Seq(vec![opt(Token(Minus)), Token(Int)]),
            Token(Uint),
            Seq(vec![opt(Token(Minus)), Token(Float)]),
            Token(String),
            Token(Bytes),
            Token(True),
            Token(False),
            Token(Null),
        ]),
    }
}

impl Network {
    /// The network of CEL's grammar; its first rule is the whole expression.
    pub(super) fn of_cel() -> Self {
        let mut network =
            Self { states: Vec::new(), rules: Vec::new(), follows: Vec::new(), firsts: Vec::new(), after: Vec::new() };
        for name in NAMES {
            let (start, stop) = (network.add(name, Role::Plain), network.add(name, Role::Stop));
            network.rules.push((start, stop));
        }
        network.follows = vec![Vec::new(); NAMES.len()];
        for name in NAMES {
            let (start, stop) = network.rules[name as usize];
            let (left, right) = network.build(name, definition(name));
            network.join(start, left);
            network.join(right, stop);
        }
        network.firsts =
            (0..network.states.len()).map(|id| Set(network.collect(id, &mut vec![false; network.states.len()]))).collect();
        network.after = (0..NAMES.len()).map(|rule| network.after(rule, &mut vec![false; NAMES.len()])).collect();
        network
    }

    fn after(&self, rule: usize, seen: &mut [bool]) -> Set {
        if std::mem::replace(&mut seen[rule], true) {
            return Set::NONE;
        }
        self.follows[rule].iter().fold(Set::NONE, |set, next| {
            let first = self.first(*next);
            let more = if first.may_be_empty() { self.after(self.states[*next].rule, seen) } else { Set::NONE };
            set.with(first).with(more)
        })
    }

    /// The choice of a decision that one token settles: when only one goes on with it, when none does but a rule may end, or
    /// when operators that bind tightly enough may be taken. Nothing is settled when several go on.
    pub(super) fn settled(&self, decision: StateId, precedence: u32, next: Kind) -> Option<Option<usize>> {
        let state = &self.states[decision];
        if state.role == Role::StarEntry {
            let (mut gates, mut open) = (false, false);
            self.gates(state.edges[0].target(), &mut |binds, first| {
                gates = true;
                open |= binds >= precedence && first.has(next);
            });
            if gates && open {
                return Some(Some(0));
            }
        }
        let goes_on = |edge: &&Edge| {
            let first = self.first(edge.target());
            first.has(next) || first.may_be_empty() && self.after[state.rule].has(next)
        };
        let mut choices = state.edges.iter().enumerate().filter(|(_, edge)| goes_on(edge)).map(|(choice, _)| choice);
        match (choices.next(), choices.next()) {
            (Some(choice), None) => Some(Some(choice)),
            (None, _) => Some(state.edges.iter().position(|edge| self.first(edge.target()).may_be_empty())),
            _ => None,
        }
    }

    fn gates(&self, id: StateId, visit: &mut dyn FnMut(u32, Set)) {
        for edge in &self.states[id].edges {
            match edge {
                Edge::Empty(to) => self.gates(*to, visit),
                Edge::Precedence(binds, to) => visit(*binds, self.first(*to)),
                Edge::Tokens(..) | Edge::Rule { .. } => {}
            }
        }
    }

    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn start(&self, rule: usize) -> StateId {
        self.rules[rule].0
    }

    pub(super) fn state(&self, id: StateId) -> &State {
        &self.states[id]
    }

    /// The states that may come after `rule`, wherever it is used.
    pub(super) fn follows(&self, rule: usize) -> &[StateId] {
        &self.follows[rule]
    }

    /// The state after the rule that is used in state `from`.
    pub(super) fn follow(&self, from: StateId) -> StateId {
        self.states[from].edges[0].target()
    }

    /// The tokens that may come in state `id`, as far as its rule tells.
    pub(super) fn first(&self, id: StateId) -> Set {
        self.firsts[id]
    }

    /// The tokens that may come in state `id` within `frames`.
    pub(super) fn expected(&self, id: StateId, frames: &[Option<StateId>]) -> Set {
        let mut found = self.first(id);
        let mut all = found;
        let mut frames = frames.iter().rev();
        while found.may_be_empty() {
            match frames.next() {
                Some(Some(from)) => {
                    found = self.first(self.follow(*from));
                    all = Set(all.with(found).0 | found.0 & EMPTY);
                }
                _ => return all.with(Set::of(&[Kind::End])),
            }
        }
        all.with(Set::NONE)
    }

    fn collect(&self, id: StateId, seen: &mut [bool]) -> u64 {
        if std::mem::replace(&mut seen[id], true) {
            return 0;
        }
        let state = &self.states[id];
        if state.role == Role::Stop {
            return EMPTY;
        }
        let mut found = 0;
        for edge in &state.edges {
            found |= match edge {
                Edge::Empty(to) | Edge::Precedence(_, to) => self.collect(*to, seen),
                Edge::Tokens(set, _) => set.0,
                // No rule of this grammar may be empty.
                Edge::Rule { rule, .. } => self.collect(self.rules[*rule].0, seen) & !EMPTY,
            };
        }
        found
    }

    fn add(&mut self, rule: Name, role: Role) -> StateId {
        self.states.push(State { role, rule: rule as usize, edges: Vec::new() });
        self.states.len() - 1
    }

    fn join(&mut self, from: StateId, to: StateId) {
        self.states[from].edges.push(Edge::Empty(to));
    }

    fn build(&mut self, rule: Name, part: Part) -> (StateId, StateId) {
        match part {
            Part::Token(kind) => self.single(rule, |to| Edge::Tokens(Set::of(&[kind]), to)),
            Part::OneOf(kinds) => self.single(rule, |to| Edge::Tokens(Set::of(kinds), to)),
            Part::Binds(precedence) => self.single(rule, |to| Edge::Precedence(precedence, to)),
            Part::Rule(name, precedence) => {
                let edge = self.single(rule, |follow| Edge::Rule { rule: name as usize, precedence, follow });
                self.follows[name as usize].push(edge.1);
                edge
            }
            Part::Seq(parts) => {
                let mut ends: Option<(StateId, StateId)> = None;
                for part in parts {
                    let (left, right) = self.build(rule, part);
                    ends = Some(match ends {
                        Some((first, last)) => {
                            self.join(last, left);
                            (first, right)
                        }
                        None => (left, right),
                    });
                }
                ends.expect("a sequence has parts")
            }
            Part::Alt(parts) => self.block(rule, parts, Role::BlockStart, false),
            Part::Opt(part) => self.block(rule, vec![*part], Role::BlockStart, true),
            Part::Star(part) => {
                let entry = self.add(rule, Role::StarEntry);
                let (left, right) = self.block(rule, alternatives(*part), Role::BlockStart, false);
                let (back, end) = (self.add(rule, Role::StarBack), self.add(rule, Role::Plain));
                self.join(entry, left);
                self.join(entry, end);
                self.join(right, back);
                self.join(back, entry);
                (entry, end)
            }
            Part::Plus(part) => {
                let (left, right) = self.block(rule, alternatives(*part), Role::PlusStart, false);
                let (back, end) = (self.add(rule, Role::PlusBack), self.add(rule, Role::Plain));
                self.join(right, back);
                self.join(back, left);
                self.join(back, end);
                (left, end)
            }
        }
    }

    fn single(&mut self, rule: Name, edge: impl FnOnce(StateId) -> Edge) -> (StateId, StateId) {
        let (left, right) = (self.add(rule, Role::Plain), self.add(rule, Role::Plain));
        self.states[left].edges.push(edge(right));
        (left, right)
    }

    fn block(&mut self, rule: Name, parts: Vec<Part>, role: Role, optional: bool) -> (StateId, StateId) {
        let (start, end) = (self.add(rule, role), self.add(rule, Role::Plain));
        for part in parts {
            let (left, right) = self.build(rule, part);
            self.join(start, left);
            self.join(right, end);
        }
        if optional {
            self.join(start, end);
        }
        (start, end)
    }
}

fn alternatives(part: Part) -> Vec<Part> {
    match part {
        Part::Alt(parts) => parts,
        other => vec![other],
    }
}
