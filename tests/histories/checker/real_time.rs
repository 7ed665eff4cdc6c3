//! The order of real time: what has ended is before what then begins.
//!
//! Promised is (`design/concurrency.md`): a commit that returned Ok is in every later snapshot, and versions are the order of
//! the log; so both hold for all threads together, which includes that the snapshots of one reader never go back. And who was
//! refused because of a change finds it in the next snapshot, so that trying again is not in vain.

use super::graph::{Edge, EdgeKind};
use super::history::{History, Kind, Outcome, TxnId};
use super::{Anomaly, Verdict, read_node};

/// Adds the edges and returns how many nodes there are. Between those who have ended and those who begin later stands a *moment*, a node
/// of its own, and moments follow each other: so the edges are as many as the transactions, not as their pairs.
///
/// Notes versions that contradict real time, or that two commits have.
pub fn add_edges(history: &History, edges: &mut Vec<Edge>, verdict: &mut Verdict) -> usize {
    let txns = &history.txns;
    let took_place = |id: &TxnId| txns[*id].version().is_some();
    let mut events: Vec<(u64, bool, TxnId)> = Vec::with_capacity(2 * txns.len());
    for id in (0..txns.len()).filter(took_place) {
        events.push((txns[id].began, false, id));
        events.push((txns[id].ended, true, id));
    }
    let is_conflict = |id: &TxnId| txns[*id].outcome == Outcome::Conflict;
    events.extend((0..txns.len()).filter(is_conflict).map(|id| (txns[id].ended, true, id)));
    events.sort_unstable();

    let mut nodes = 2 * txns.len();
    let mut moment = None;
    // Those who have ended since the last moment, and the highest version that anybody knew who has ended.
    let mut ended: Vec<TxnId> = Vec::new();
    let mut known = 0;
    let edge = |from, to| Edge { from, to, kind: EdgeKind::RealTime, key: u32::MAX };
    for (_, is_end, id) in events {
        let txn = &txns[id];
        if txn.outcome == Outcome::Conflict {
            known = known.max(txn.snapshot.map_or(0, |snapshot| snapshot + 1));
            continue;
        }
        let version = txn.version().unwrap_or_default();
        if is_end {
            ended.push(id);
            known = known.max(version);
            continue;
        }
        if !ended.is_empty() {
            edges.extend(moment.map(|moment| edge(moment, nodes)));
            edges.extend(ended.drain(..).map(|before| edge(read_node(before), nodes)));
            moment = Some(nodes);
            nodes += 1;
        }
        edges.extend(moment.map(|moment| edge(moment, read_node(id))));
        let reads = txn.snapshot.unwrap_or(version);
        let is_late = if txn.kind == Kind::Snapshot { version >= known } else { version > known };
        if reads < known || !is_late {
            verdict.note(Anomaly::Versions, || format!("version {known} was known when {id} began: {txn:?}"));
        }
    }

    let commits = txns.iter().filter(|txn| txn.kind != Kind::Snapshot);
    let mut versions: Vec<u64> = commits.filter_map(|txn| txn.version()).collect();
    versions.sort_unstable();
    for pair in versions.windows(2).filter(|pair| pair[0] == pair[1]) {
        verdict.note(Anomaly::Versions, || format!("two commits have version {}", pair[0]));
    }
    nodes
}
