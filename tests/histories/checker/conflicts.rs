//! Conflicts and their causes.
//!
//! A checked transaction may be refused only if what it read was changed since its snapshot. A change of a metric is any write to it, at
//! whatever time and whether it changes a point or not; so the windows of a metric are one here. The cause is published before the conflict
//! is returned: it is in the history with a version, and began before the conflict ended.

use std::collections::HashMap;

use super::history::{History, Key, Op, Outcome, Txn};
use super::{Anomaly, Verdict};

/// What is compared as one when a transaction is validated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    List(u32),
    Register(u32),
    Name(u32),
    Meta(u32),
}

impl Subject {
    fn of(key: Key) -> Subject {
        match key {
            Key::List { metric, .. } => Subject::List(metric),
            Key::Register { metric, .. } => Subject::Register(metric),
            Key::Name(name) => Subject::Name(name),
            Key::Meta(meta) => Subject::Meta(meta),
        }
    }
}

/// Notes conflicts that nothing in the history explains. Of those whose snapshot is not known nothing is said.
pub fn justify(history: &History, verdict: &mut Verdict) {
    let subject = |op: &Op| Subject::of(history.keys[op.key() as usize]);
    let is_read = |op: &&Op| matches!(op, Op::Read { .. });
    // By subject the versions that wrote to it, ascending, each with the first moment at which it or a later one had begun.
    let mut writes: HashMap<Subject, Vec<(u64, u64)>> = HashMap::new();
    for txn in &history.txns {
        let Some(version) = txn.version() else { continue };
        for op in txn.ops.iter().filter(|op| !is_read(op)) {
            writes.entry(subject(op)).or_default().push((version, txn.began));
        }
    }
    for writes in writes.values_mut() {
        writes.sort_unstable();
        let mut first = u64::MAX;
        for (_, began) in writes.iter_mut().rev() {
            first = first.min(*began);
            *began = first;
        }
    }
    let has_cause = |txn: &Txn, snapshot: u64| {
        txn.ops.iter().filter(is_read).any(|op| {
            let writes = writes.get(&subject(op)).map_or(&[][..], Vec::as_slice);
            let later = writes.partition_point(|(version, _)| *version <= snapshot);
            writes.get(later).is_some_and(|(_, began)| *began < txn.ended)
        })
    };
    for (id, txn) in history.txns.iter().enumerate() {
        if let (Outcome::Conflict, Some(snapshot)) = (txn.outcome, txn.snapshot)
            && !has_cause(txn, snapshot)
        {
            verdict.note(Anomaly::NoConflict, || format!("nothing that {id} read had changed: {txn:?}"));
        }
    }
}
