//! What a power cut or the death of a process may leave of a history: a prefix of its commits, in the order of their versions, with all
//! that were acknowledged as durable; and of those that were never acknowledged each entirely or not at all, behind all others.

use std::collections::{HashMap, HashSet};

use super::history::{Element, History, Incarnation, Key, KeyId, Kind, Op, Outcome, Txn, TxnId};
use super::orders::Effect;

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub incarnation: Option<Incarnation>,
    pub elements: HashSet<Element>,
}

/// What is found after recovery, in one snapshot.
#[derive(Clone, Debug)]
pub struct Found {
    /// The version of the snapshot.
    pub version: u64,
    /// All keys; the same as in the history.
    pub keys: Vec<Content>,
}

impl Found {
    /// The first transaction of the history that begins with this.
    pub fn first(&self, keys: &[Key]) -> Txn {
        let mut ops = Vec::new();
        for (key, (name, content)) in keys.iter().zip(&self.keys).enumerate() {
            let key = key as KeyId;
            if let (Key::Name(_), Some(incarnation)) = (name, content.incarnation) {
                ops.push(Op::Create { key, incarnation });
            }
            let incarnation = content.incarnation.unwrap_or_default();
            ops.extend(content.elements.iter().map(|element| match name {
                Key::Register { .. } | Key::Meta(_) => Op::Set { key, element: *element },
                Key::List { .. } | Key::Name(_) => Op::Append { key, incarnation, element: *element },
            }));
        }
        let outcome = Outcome::Committed { version: self.version, durable: true };
        Txn { kind: Kind::Blind, began: 0, ended: 0, snapshot: None, outcome, ops }
    }
}

/// Whether a transaction of which nobody knows is there, as far as one key can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    Present,
    Absent,
    Torn,
}

/// What is wrong with what was found after a history.
pub fn violations(history: &History, found: &Found) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last = 0;
    for (id, txn) in history.txns.iter().enumerate().filter(|(_, txn)| txn.kind != Kind::Snapshot) {
        last = last.max(txn.version().unwrap_or_default());
        if let Outcome::Committed { version, durable: true } = txn.outcome
            && version > found.version
        {
            wrong.push(format!("{id} was durable at {version}, found is {}", found.version));
        }
    }

    let unknown = |txn: &Txn| txn.outcome == Outcome::Unknown;
    let ids = (0..history.txns.len()).filter(|id| unknown(&history.txns[*id]));
    let unknown: HashMap<TxnId, HashMap<KeyId, Effect>> =
        ids.map(|id| (id, effects(&history.txns[id]))).collect();
    let mut by_key: HashMap<KeyId, Vec<(TxnId, &Effect)>> = HashMap::new();
    for (id, effects) in &unknown {
        effects.iter().for_each(|(key, effect)| by_key.entry(*key).or_default().push((*id, effect)));
    }

    let expected = replay(history, found.version);
    let mut evidence: HashMap<TxnId, Vec<(KeyId, Evidence)>> = HashMap::new();
    for (key, (expected, found)) in expected.iter().zip(&found.keys).enumerate() {
        let touched = by_key.get(&(key as KeyId)).map_or(&[][..], Vec::as_slice);
        match judge(expected, found, touched) {
            Some(each) => each.into_iter().for_each(|(id, is)| {
                evidence.entry(id).or_default().push((key as KeyId, is));
            }),
            None => wrong.push(format!(
                "{:?} is {found:?}, not {expected:?}; changed by unacknowledged {touched:?}",
                history.keys[key]
            )),
        }
    }
    let mut present = 0;
    for (id, all) in &evidence {
        let has = |is| all.iter().any(|(_, each)| *each == is);
        present += u64::from(has(Evidence::Present));
        if has(Evidence::Torn) || (has(Evidence::Present) && has(Evidence::Absent)) {
            wrong.push(format!("{id} is there in part: {all:?} of {:?}", history.txns[*id]));
        }
    }
    let beyond = found.version.saturating_sub(last);
    if present > beyond || beyond > unknown.len() as u64 {
        wrong.push(format!(
            "{present} of {} unacknowledged ones are there, but {beyond} versions behind {last}",
            unknown.len()
        ));
    }
    wrong
}

/// What each of the unknown transactions that touched a key did there; of those that are not named the key tells nothing. `None`
/// if what is found can not be.
fn judge(
    expected: &Content,
    found: &Content,
    touched: &[(TxnId, &Effect)],
) -> Option<Vec<(TxnId, Evidence)>> {
    let theirs: HashSet<Element> =
        touched.iter().flat_map(|(_, effect)| effect.elements.iter().copied()).collect();
    let rest: HashSet<Element> = found.elements.difference(&theirs).copied().collect();
    let replaces = |effect: &Effect| effect.clears || effect.drops.is_some();
    let replacers = touched.iter().filter(|(_, effect)| replaces(effect)).count();
    let is_kept = rest == expected.elements
        && (expected.incarnation.is_none() || found.incarnation == expected.incarnation);
    let is_replaced = rest.is_empty() && replacers > 0;
    let is_made = found.incarnation == expected.incarnation
        || found.incarnation.is_none()
        || touched.iter().any(|(_, effect)| effect.makes == found.incarnation);
    if !(is_kept || is_replaced) || !is_made {
        return None;
    }
    let nothing_before = expected.elements.is_empty() && expected.incarnation.unwrap_or_default() == 0;
    let mut evidence = Vec::new();
    for (id, effect) in touched {
        let seen = effect.elements.iter().filter(|element| found.elements.contains(element)).count();
        let others = replacers - usize::from(replaces(effect));
        if seen == effect.elements.len() && seen > 0 {
            evidence.push((*id, Evidence::Present));
        } else if seen > 0 {
            evidence.push((*id, Evidence::Torn));
        } else if !effect.elements.is_empty() && others == 0 {
            evidence.push((*id, Evidence::Absent));
        }
        let ends = effect.clears || (effect.drops.is_some() && effect.drops == expected.incarnation);
        if ends && !nothing_before && others == 0 {
            evidence.push((*id, if is_kept { Evidence::Absent } else { Evidence::Present }));
        }
    }
    Some(evidence)
}

/// What all keys hold after the commits up to a version.
fn replay(history: &History, upto: u64) -> Vec<Content> {
    let initial = |key: &Key| Content { incarnation: key.initial(), elements: HashSet::new() };
    let mut contents: Vec<Content> = history.keys.iter().map(initial).collect();
    let version = |txn: &Txn| txn.version().filter(|version| *version <= upto);
    let mut commits: Vec<(u64, &Txn)> =
        history.txns.iter().filter_map(|txn| Some((version(txn)?, txn))).collect();
    commits.sort_by_key(|(version, _)| *version);
    for (key, effect) in commits.into_iter().flat_map(|(_, txn)| effects(txn)) {
        let content = &mut contents[key as usize];
        let drops = effect.drops.is_some() && effect.drops == content.incarnation;
        let makes = effect.makes.is_some() && effect.makes != content.incarnation;
        if drops || makes || effect.clears {
            content.elements.clear();
        }
        content.incarnation = effect.makes.or(if drops { None } else { content.incarnation });
        content.elements.extend(effect.elements);
    }
    contents
}

/// What a transaction does to each of its keys.
fn effects(txn: &Txn) -> HashMap<KeyId, Effect> {
    let mut effects: HashMap<KeyId, Effect> = HashMap::new();
    let writes = txn.ops.iter().filter(|op| !matches!(op, Op::Read { .. }));
    writes.for_each(|op| effects.entry(op.key()).or_default().add(op));
    effects
}
