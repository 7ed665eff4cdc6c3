//! Checked transactions: each runs against another one that commits first, and the model says whether that is a conflict.

use std::ops::Bound;

use chronolith::{Durability, Error, Timestamp, WriteTransaction};

use crate::history::{History, content, handle, key_bytes, name, namespace, stage};
use crate::state::State;
use crate::steps::{Look, Write};
use crate::{Bounds, METRICS};

const ALL: Bounds = (Bound::Unbounded, Bound::Unbounded);

impl History {
    /// Begins, looks, lets another transaction commit, writes, and commits if the model says that it can.
    pub fn checked(&mut self, looks: &[Look], rival: &[Write], writes: &[Write]) {
        let begun = self.now().clone();
        let mut txn = self.db().begin_checked();
        looks.iter().for_each(|look| self.look(&txn, *look, &begun));

        let mut other = self.db().begin_write();
        let (rival, state) = self.stage_all(&mut other, rival, begun.clone());
        let version = other.commit().expect("nobody contradicts it");
        self.committed(version.get(), state.clone(), Durability::Sync);

        let (writes, after) = self.stage_all(&mut txn, writes, state.clone());
        let expected = looks.iter().any(|look| is_outdated(*look, &begun, &rival, &state));
        let has_changes = writes.iter().any(is_staged);
        match txn.commit() {
            Ok(version) => {
                assert!(!expected || !has_changes, "{looks:?} are outdated by {rival:?}");
                if has_changes {
                    self.committed(version.get(), after, Durability::Sync);
                }
            }
            Err(Error::Conflict { .. }) => {
                assert!(expected && has_changes, "{looks:?} are not outdated by {rival:?}");
                assert_eq!(self.db().snapshot().version(), version, "nothing of it was committed");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Reads and compares with the model.
    fn look(&self, txn: &WriteTransaction, look: Look, state: &State) {
        let db = self.db();
        match look {
            Look::Points(metric, bounds) => {
                let points = txn.range(&handle(db, metric), bounds);
                let points: Vec<_> = points.map(|point| content(point.expect("a read"))).collect();
                assert_eq!(points, state.read(metric, &bounds));
            }
            Look::Latest(metric) => {
                let latest = txn.latest(&handle(db, metric)).expect("a read").map(content);
                assert_eq!(latest, state.read(metric, &ALL).pop());
            }
            Look::Contains(metric) => {
                assert_eq!(txn.contains(&handle(db, metric)), state.metrics.contains_key(&metric));
            }
            Look::ByName(metric) => {
                let tags = if metric >= METRICS - 2 { "{host=\"a\",zone=\"b\"}" } else { "" };
                let found = txn.metric_in(&namespace(db, metric), format!("{}{tags}", name(metric)));
                assert_eq!(found.is_some(), state.metrics.contains_key(&metric));
            }
            Look::Meta(key) => assert_eq!(txn.meta(key_bytes(key)), state.metas.get(&key).cloned()),
        }
    }

    /// Stages what is allowed: nothing more for a metric after its drop. Returns that, and the state after it.
    fn stage_all(
        &self,
        txn: &mut WriteTransaction,
        writes: &[Write],
        mut state: State,
    ) -> (Vec<Write>, State) {
        let mut dropped = Vec::new();
        let mut staged = Vec::new();
        for write in writes {
            if write.metrics().iter().any(|metric| dropped.contains(metric)) {
                continue;
            }
            stage(self.db(), txn, write).expect("a step that is allowed");
            if let Write::Drop(metric) = write {
                dropped.push(*metric);
            }
            state.apply(write);
            staged.push(write.clone());
        }
        (staged, state)
    }
}

/// Whether what was seen at the beginning is no longer so after the rival's commit.
fn is_outdated(look: Look, begun: &State, rival: &[Write], now: &State) -> bool {
    let touches = |metric: usize, is_such: fn(&Write) -> bool| {
        rival.iter().any(|write| write.metrics().contains(&metric) && is_such(write))
    };
    match look {
        Look::Meta(key) => begun.metas.get(&key) != now.metas.get(&key),
        Look::Points(metric, _) | Look::Latest(metric) | Look::Contains(metric) | Look::ByName(metric)
            if !begun.metrics.contains_key(&metric) =>
        {
            touches(metric, |write| is_staged(write) && !matches!(write, Write::Delete(..) | Write::Drop(_)))
        }
        // Making what is there is no change.
        Look::Points(metric, _) | Look::Latest(metric) => {
            touches(metric, |write| is_staged(write) && !matches!(write, Write::Create(_)))
        }
        Look::Contains(metric) | Look::ByName(metric) => {
            touches(metric, |write| matches!(write, Write::Drop(_)))
        }
    }
}

/// Whether a write comes to anything: no points and no time to delete are no change.
fn is_staged(write: &Write) -> bool {
    match write {
        Write::Columns(_, points) => !points.is_empty(),
        Write::Row(_, row) => !row.is_empty(),
        Write::Delete(_, bounds) => !is_empty(bounds),
        _ => true,
    }
}

fn is_empty((from, to): &Bounds) -> bool {
    let nanos = Timestamp::as_nanos;
    let first = match from {
        Bound::Included(at) => Some(nanos(*at)),
        Bound::Excluded(at) => nanos(*at).checked_add(1),
        Bound::Unbounded => Some(i64::MIN),
    };
    let last = match to {
        Bound::Included(at) => Some(nanos(*at)),
        Bound::Excluded(at) => nanos(*at).checked_sub(1),
        Bound::Unbounded => Some(i64::MAX),
    };
    first.zip(last).is_none_or(|(first, last)| first > last)
}
