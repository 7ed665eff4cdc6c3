//! The order of the writes of each key, and where reads stand in it.

use std::collections::{HashMap, HashSet};

use super::graph::{Edge, EdgeKind};
use super::history::{Element, History, Incarnation, Key, KeyId, Kind, Op, Txn, TxnId};
use super::{Anomaly, Verdict, read_node};

/// For each key its states, one after the other.
pub struct Orders {
    keys: Vec<Vec<State>>,
    elements: HashMap<Element, Origin>,
    /// Metrics that a name no longer stands for.
    ended: HashSet<(KeyId, Incarnation)>,
}

/// What a transaction left of a key. The state before the first is the key's initial one.
#[derive(Clone, Copy, Debug)]
struct State {
    txn: TxnId,
    version: u64,
    /// Nothing that was there before the first state of a generation is there in it.
    generation: u32,
    incarnation: Option<Incarnation>,
    /// How many elements there are.
    len: usize,
}

/// Where an element comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// It is there from this state on, until the generation ends.
    State(KeyId, usize),
    /// Its transaction did not happen.
    Failed(TxnId),
    /// Its transaction removed it again.
    Intermediate(TxnId),
}

/// What a transaction does to a key, all together.
#[derive(Debug, Default)]
pub struct Effect {
    /// What was there is gone.
    pub clears: bool,
    pub drops: Option<Incarnation>,
    pub makes: Option<Incarnation>,
    pub elements: Vec<Element>,
    /// Written and removed again.
    intermediate: Vec<Element>,
}

impl Orders {
    /// Orders the writes by the versions of their commits. Notes writes that do not fit the state before.
    pub fn new(history: &History, verdict: &mut Verdict) -> Orders {
        let keys = vec![Vec::new(); history.keys.len()];
        let mut orders = Orders { keys, elements: HashMap::new(), ended: HashSet::new() };
        let mut commits: Vec<(u64, TxnId)> = Vec::new();
        for (id, txn) in history.txns.iter().enumerate() {
            match txn.version() {
                Some(version) => commits.push((version, id)),
                None => orders.fail(id, txn),
            }
        }
        commits.sort_unstable();
        for (version, id) in commits {
            let mut effects: Vec<(KeyId, Effect)> = Vec::new();
            for op in &history.txns[id].ops {
                let place = effects.iter().position(|(key, _)| *key == op.key());
                let place = place.unwrap_or_else(|| {
                    effects.push((op.key(), Effect::default()));
                    effects.len() - 1
                });
                effects[place].1.add(op);
            }
            for (key, effect) in effects {
                orders.push(history.keys[key as usize], key, (id, version), effect, verdict);
            }
        }
        orders
    }

    /// The elements of a transaction that did not happen.
    fn fail(&mut self, id: TxnId, txn: &Txn) {
        for op in &txn.ops {
            if let Op::Append { element, .. } | Op::Set { element, .. } = op {
                self.elements.insert(*element, Origin::Failed(id));
            }
        }
    }

    fn push(
        &mut self,
        name: Key,
        key: KeyId,
        (txn, version): (TxnId, u64),
        effect: Effect,
        verdict: &mut Verdict,
    ) {
        let states = &mut self.keys[key as usize];
        let (before, index) = (states.last().copied(), states.len());
        let mut state = before.unwrap_or_else(|| State::initial(name));
        let wrong = effect.makes.filter(|made| {
            let is_other = state.incarnation.is_some_and(|is| is != *made);
            matches!(name, Key::Name(_)) && (is_other || self.ended.contains(&(key, *made)))
        });
        if let Some(made) = wrong {
            verdict.note(Anomaly::Incarnation, || {
                format!("{txn} writes to metric {made} of {name:?} after {before:?}")
            });
        }
        let drops = effect.drops.is_some() && effect.drops == state.incarnation;
        let makes = effect.makes.is_some() && effect.makes != state.incarnation;
        // Removing what is not there changes nothing that anybody could see.
        let clears = effect.clears && state.len > 0;
        if drops || clears || makes {
            (state.generation, state.len) = (state.generation + 1, 0);
        }
        if (drops || makes)
            && let Some(ended) = state.incarnation
        {
            self.ended.insert((key, ended));
        }
        state.incarnation = effect.makes.or(if drops { None } else { state.incarnation });
        state.len += effect.elements.len();
        (state.txn, state.version) = (txn, version);
        if drops || clears || makes || !effect.elements.is_empty() {
            states.push(state);
        }
        for element in effect.elements {
            self.elements.insert(element, Origin::State(key, index));
        }
        for element in effect.intermediate {
            self.elements.insert(element, Origin::Intermediate(txn));
        }
    }

    /// From each write to the next of its key.
    pub fn write_edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (key, states) in self.keys.iter().enumerate() {
            edges.extend(states.windows(2).map(|pair| Edge {
                from: read_node(pair[0].txn),
                to: read_node(pair[1].txn),
                kind: EdgeKind::Ww,
                key: key as u32,
            }));
        }
        edges
    }

    /// From each write to who sees it last, and from there to the first write that was not seen. Notes reads that are wrong in
    /// themselves.
    pub fn read_edges(&self, history: &History, edges: &mut Vec<Edge>, verdict: &mut Verdict) {
        for (id, txn) in history.txns.iter().enumerate() {
            // What it wrote so far, which its own reads see.
            let mut own: HashMap<KeyId, Effect> = HashMap::new();
            for op in &txn.ops {
                let Op::Read { key, incarnation, elements } = op else {
                    own.entry(op.key()).or_default().add(op);
                    continue;
                };
                verdict.reads += 1;
                let mut elements = elements.clone();
                if let Some(own) = own.get(key) {
                    // A name may stand for another metric in the snapshot than the one that it wrote to.
                    let is_name = matches!(history.keys[*key as usize], Key::Name(_));
                    let is_seen = match is_name {
                        true if own.drops.is_some() => *incarnation != own.drops,
                        true => *incarnation != own.makes || own.is_seen_in(&mut elements),
                        false => own.is_seen_in(&mut elements),
                    };
                    if !is_seen {
                        verdict.note(Anomaly::Internal, || format!("{id} after {own:?}: {txn:?}"));
                    }
                    if own.clears || is_name {
                        continue;
                    }
                }
                let read = Read { id, txn, key: *key, incarnation: *incarnation, elements: &elements };
                let Some((seen, unseen)) = self.place(history, read, verdict) else { continue };
                let states = &self.keys[*key as usize];
                // Said once more without the graph: a read is what is there at its snapshot's version.
                let late = states.get(unseen).map(|state| state.version);
                let early = seen.map_or(0, |seen| states[seen].version);
                if let Some(snapshot) = txn.snapshot
                    && (early > snapshot || late.is_some_and(|late| late <= snapshot))
                {
                    let name = history.keys[*key as usize];
                    verdict.note(Anomaly::WrongVersion, || {
                        format!(
                            "{id} sees {name:?} as it was from {early} on and before {late:?}, at {snapshot}: {txn:?}"
                        )
                    });
                }
                let (seen, unseen) = self.place_of_checked(read, (seen, unseen));
                // What a checked transaction read is what there was just before it.
                if let (Kind::Checked, Some(version)) = (txn.kind, txn.version())
                    && let Some(missed) = states.get(unseen).filter(|missed| missed.version < version)
                {
                    let name = history.keys[*key as usize];
                    verdict.note(Anomaly::StaleRead, || {
                        format!("{id} at {version} read {name:?} as it was before {missed:?}: {txn:?}")
                    });
                }
                let edge = |from: TxnId, to: TxnId, kind| Edge {
                    from: read_node(from),
                    to: read_node(to),
                    kind,
                    key: *key,
                };
                if let Some(seen) = seen {
                    edges.push(edge(states[seen].txn, id, EdgeKind::Wr));
                }
                if let Some(unseen) = states.get(unseen) {
                    edges.push(edge(id, unseen.txn, EdgeKind::Rw));
                }
            }
        }
    }

    /// The last state whose effect a read shows (none: the initial one) and the first whose effect it does not show.
    fn place(
        &self,
        history: &History,
        read: Read<'_>,
        verdict: &mut Verdict,
    ) -> Option<(Option<usize>, usize)> {
        let Read { id, txn, .. } = read;
        let states = &self.keys[read.key as usize];
        let mut found: Vec<usize> = Vec::with_capacity(read.elements.len());
        for element in read.elements {
            match self.elements.get(element) {
                Some(Origin::State(key, state)) if *key == read.key => found.push(*state),
                Some(Origin::Failed(writer)) => {
                    verdict.note(Anomaly::G1a, || format!("{id} sees {element} of {writer}: {txn:?}"));
                }
                Some(Origin::Intermediate(writer)) => {
                    verdict.note(Anomaly::G1b, || format!("{id} sees {element} of {writer}: {txn:?}"));
                }
                _ => verdict.note(Anomaly::Invented, || format!("{id} sees {element}: {txn:?}")),
            }
        }
        found.sort_unstable();
        let name = history.keys[read.key as usize];
        let Some(last) = found.last().copied() else {
            return self.place_of_nothing(name, &read, verdict);
        };
        if read.incarnation != states[last].incarnation {
            verdict.note(Anomaly::Invented, || format!("{id} sees another metric: {txn:?}"));
        }
        if has_twice(read.elements) {
            verdict.note(Anomaly::Invented, || format!("{id} sees an element twice: {txn:?}"));
        }
        // How many elements of each state are seen; one whose elements are all there is seen. The first that is not, of those that
        // must be for the last to be seen as it is, is what the read misses.
        let first = states.partition_point(|state| state.generation < states[found[0]].generation);
        let mut seen = found.iter().copied().peekable();
        for (place, state) in states.iter().enumerate().take(last + 1).skip(first) {
            let same = |before: &&State| before.generation == state.generation;
            let before = place.checked_sub(1).and_then(|before| states.get(before)).filter(same);
            let wrote = state.len - before.map_or(0, |before| before.len);
            let mut count = 0;
            while seen.next_if(|seen| *seen == place).is_some() {
                count += 1;
            }
            if count > 0 && count < wrote {
                verdict.note(Anomaly::G1b, || format!("{id} sees a part of {state:?}: {txn:?}"));
            }
            // An element of an earlier generation is seen: then what ended that is not.
            let is_unseen_end = before.is_none() && place > first;
            if count < wrote || is_unseen_end {
                return Some((Some(last), place));
            }
        }
        Some((Some(last), last + 1))
    }

    /// Where a read stands that a checked transaction had confirmed when it was committed: if nothing was there in its snapshot, and
    /// nothing is there at its commit either, then it is the later nothing. (What is seen with elements is never there again.)
    fn place_of_checked(&self, read: Read<'_>, place: (Option<usize>, usize)) -> (Option<usize>, usize) {
        let states = &self.keys[read.key as usize];
        let Some(version) = read.txn.version().filter(|_| read.txn.kind == Kind::Checked) else {
            return place;
        };
        let upto = states.partition_point(|state| state.version < version);
        let is_it = |state: &State| state.len == 0 && state.incarnation == read.incarnation;
        match upto.checked_sub(1) {
            Some(last) if read.elements.is_empty() && is_it(&states[last]) => (Some(last), upto),
            _ => place,
        }
    }

    /// The same for a read without elements: which of the states without elements it is, its snapshot tells. Without that, it is the last
    /// before the commit of a checked transaction, and with others it may be any of several and says nothing.
    fn place_of_nothing(
        &self,
        name: Key,
        read: &Read<'_>,
        verdict: &mut Verdict,
    ) -> Option<(Option<usize>, usize)> {
        let states = &self.keys[read.key as usize];
        let is_it = |state: &State| state.len == 0 && state.incarnation == read.incarnation;
        let is_initial = is_it(&State::initial(name));
        let own = read.txn.version().filter(|_| read.txn.kind == Kind::Checked);
        let snapshot = read.txn.snapshot.or(own.map(|version| version.saturating_sub(1)));
        if snapshot.is_none()
            && states.iter().filter(|state| is_it(state)).count() + usize::from(is_initial) > 1
        {
            return None;
        }
        let snapshot = snapshot.unwrap_or_default();
        let upto = states.partition_point(|state| state.version <= snapshot);
        let earlier = states[..upto].iter().rposition(is_it);
        let later = || states[upto..].iter().position(is_it).map(|place| upto + place);
        match earlier {
            Some(place) => Some((Some(place), place + 1)),
            None if is_initial => Some((None, 0)),
            None => match later() {
                Some(place) => Some((Some(place), place + 1)),
                None => {
                    let Read { id, txn, .. } = read;
                    verdict
                        .note(Anomaly::Invented, || format!("{name:?} was never as {id} sees it: {txn:?}"));
                    None
                }
            },
        }
    }
}

/// A read and whose it is.
#[derive(Clone, Copy)]
struct Read<'a> {
    id: TxnId,
    txn: &'a Txn,
    key: KeyId,
    incarnation: Option<Incarnation>,
    elements: &'a [Element],
}

fn has_twice(elements: &[Element]) -> bool {
    let mut sorted = elements.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

impl State {
    fn initial(name: Key) -> State {
        State { txn: TxnId::MAX, version: 0, generation: 0, incarnation: name.initial(), len: 0 }
    }
}

impl Effect {
    /// Does one thing more.
    pub fn add(&mut self, op: &Op) {
        match *op {
            Op::Append { incarnation, element, .. } => {
                let made = self.makes.replace(incarnation).filter(|made| *made != incarnation);
                if made.is_some() {
                    // Dropped by another since: a transaction that wrote to both is never committed.
                    self.elements.clear();
                }
                // Lists that are no names have always been there: what is appended to incarnation 0 makes nothing.
                self.makes = self.makes.filter(|incarnation| *incarnation != 0);
                self.elements.push(element);
            }
            Op::Set { element, .. } => {
                self.clears = true;
                self.intermediate.append(&mut self.elements);
                self.elements.push(element);
            }
            Op::Clear { .. } => {
                self.clears = true;
                self.intermediate.append(&mut self.elements);
            }
            Op::Create { incarnation, .. } => self.makes = Some(incarnation),
            Op::Drop { incarnation, .. } => {
                self.drops = Some(incarnation);
                self.makes = None;
                self.intermediate.append(&mut self.elements);
            }
            Op::Read { .. } => {}
        }
    }

    /// Takes its elements out of what its transaction reads; false if some are missing, or what it removed is there.
    fn is_seen_in(&self, seen: &mut Vec<Element>) -> bool {
        let is_there = self.elements.iter().all(|element| seen.contains(element));
        let is_gone = self.intermediate.iter().all(|element| !seen.contains(element));
        seen.retain(|element| !self.elements.contains(element));
        is_there && is_gone && (seen.is_empty() || !self.clears)
    }
}
