//! Isolation, checked from what threads saw.
//!
//! Transactions are recorded while they run (`history`), and afterwards nothing is believed but the record. Three kinds of
//! keys are written and read:
//!
//! * A *list* is a window of time of one metric. An append is a point at a fresh time in that window, whose value is an
//!   element that is used once; a read is a range read. Times say nothing about the order of commits, so a read yields a set.
//! * A *register* is one timestamp of a metric, or a piece of metadata; each write replaces its value. A read yields the last element.
//! * A *name* is a metric ID and all metrics that it ever stood for: its incarnations, which are made and dropped. Each is a
//!   list of its own. A read yields the incarnation, if there is one, and its list.
//!
//! What is observable: the elements of a read name their writers, and a commit returns its version. So the versions order the
//! writes of a key (`orders`), a read has a place in this order, and both give dependencies between transactions
//! (`graph`): `ww` from a write to the next of its key, `wr` from a write to who sees it as the last, `rw` from a read to the first
//! write that it does not see, and `rt` from what has ended to what then begins. Every cycle is a violation of something.
//!
//! What is promised depends on the kind of a transaction ([`Kind`]). Snapshots, blind writes and checked transactions are each at
//! one place in one order, so they are one node. One that reads its snapshot and writes without being checked is at two, first where it
//! reads, then where it writes: two nodes, one before the other. Then *any* cycle is forbidden: write skew and lost updates of
//! unchecked transactions are none, and every anomaly that snapshot isolation rules out is one, as is a write skew of checked
//! transactions. What unchecked transactions did to each other is counted apart, on the graph that has one node for each.
//!
//! Names of cycles: Adya, "Weak Consistency" (MIT 1999), and Kingsbury and Alvaro, "Elle" (VLDB 2020).

mod conflicts;
pub mod graph;
pub mod history;
pub mod orders;
mod real_time;
pub mod recovery;

use std::collections::BTreeMap;
use std::fmt;

use graph::{Cycle, Edge, EdgeKind, Graph};
use history::{History, Kind, TxnId};
use orders::Orders;

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Anomaly {
    /// Writes in a circle, which only real time can close: the order of writes is taken from the versions, so `ww` alone is never a
    /// cycle. Writes that took effect in another order show in those who read them, as a G-single.
    G0,
    /// What a transaction wrote that was not committed is seen.
    G1a,
    /// What a transaction overwrote or removed itself is seen, or a part of what it wrote to a key.
    G1b,
    /// Information flows in a circle: a cycle of `ww` and `wr`.
    G1c,
    /// A cycle with one `rw`: a snapshot that sees an effect and not its cause, or half a commit.
    GSingle,
    /// A G-single of two transactions about one key: both read the same, and one overwrote the other.
    LostUpdate,
    /// A cycle with several `rw`; of checked transactions it is a write skew.
    G2,
    /// A cycle that needs the order of real time: a snapshot that misses a commit that had returned, for instance.
    RealTime,
    /// Versions that do not follow real time, or are given out twice.
    Versions,
    /// A read is not what is there at the version of its snapshot.
    WrongVersion,
    /// What a checked transaction read had changed before its own version.
    StaleRead,
    /// A conflict, though nothing of what was read had changed since the snapshot.
    NoConflict,
    /// A transaction does not see its own writes.
    Internal,
    /// What nobody wrote is seen, or in the wrong place, or twice.
    Invented,
    /// A write to a metric after its drop, or two metrics of one name at a time.
    Incarnation,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Transactions in the history.
    pub transactions: usize,
    /// Those that were committed, by kind.
    pub committed: BTreeMap<Kind, usize>,
    /// Keys that were read, over all transactions.
    pub reads: usize,
    /// Dependencies, real time included.
    pub edges: usize,
    /// How many of each kind there are; of cycles, one for each set of transactions that depend on each other.
    pub anomalies: BTreeMap<Anomaly, usize>,
    /// The first of them, in words.
    pub texts: Vec<String>,
    /// Cycles of unchecked transactions, which they allow: by the kind of the shortest.
    pub allowed: BTreeMap<Anomaly, usize>,
}

impl Verdict {
    /// Texts kept.
    const TEXTS_MAX: usize = 12;

    /// Notes an anomaly.
    pub fn note(&mut self, anomaly: Anomaly, text: impl FnOnce() -> String) {
        *self.anomalies.entry(anomaly).or_default() += 1;
        if self.texts.len() < Verdict::TEXTS_MAX {
            self.texts.push(format!("{anomaly:?}: {}", text()));
        }
    }

    /// Whether an anomaly was found.
    pub fn has(&self, anomaly: Anomaly) -> bool {
        self.anomalies.contains_key(&anomaly)
    }

    /// Whether there is nothing wrong.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Verdict) -> Verdict {
        self.transactions += other.transactions;
        self.reads += other.reads;
        self.edges += other.edges;
        add(&mut self.committed, other.committed);
        add(&mut self.anomalies, other.anomalies);
        add(&mut self.allowed, other.allowed);
        let free = Verdict::TEXTS_MAX.saturating_sub(self.texts.len());
        self.texts.extend(other.texts.into_iter().take(free));
        self
    }

    /// Fails if anything is wrong.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { transactions, committed, reads, edges, anomalies, allowed, texts } = self;
        write!(
            f,
            "{transactions} transactions, committed {committed:?}, {reads} reads, {edges} dependencies; "
        )?;
        write!(f, "anomalies {anomalies:?}; allowed {allowed:?}")?;
        texts.iter().try_for_each(|text| write!(f, "\n  {text}"))
    }
}

fn add<T: Ord>(to: &mut BTreeMap<T, usize>, from: BTreeMap<T, usize>) {
    from.into_iter().for_each(|(what, count)| *to.entry(what).or_default() += count);
}

/// Looks for everything that must not be. Linear in the history and in what was read, but for sorts.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict { transactions: history.txns.len(), ..Verdict::default() };
    for txn in history.txns.iter().filter(|txn| txn.version().is_some()) {
        *verdict.committed.entry(txn.kind).or_default() += 1;
    }
    let orders = Orders::new(history, &mut verdict);
    let mut edges = orders.write_edges();
    orders.read_edges(history, &mut edges, &mut verdict);
    conflicts::justify(history, &mut verdict);
    let data_edges = edges.len();
    let nodes = real_time::add_edges(history, &mut edges, &mut verdict);
    verdict.edges = edges.len();

    let split = Graph::new(nodes, edges.iter().map(|edge| edge.split(history)).chain(inner_edges(history)));
    for cycle in split.cycles() {
        verdict.note(name(history, &cycle), || describe(history, &cycle));
    }
    // The other graph shows nothing new unless some transaction is two nodes in this one.
    if verdict.is_clean() && history.txns.iter().any(|txn| txn.is_split()) {
        edges.truncate(data_edges);
        let whole = Graph::new(nodes, edges.into_iter());
        for cycle in whole.cycles() {
            *verdict.allowed.entry(name(history, &cycle)).or_default() += 1;
        }
    }
    verdict
}

/// An unchecked transaction reads before it writes.
fn inner_edges(history: &History) -> impl Iterator<Item = Edge> {
    let split = history.txns.iter().enumerate().filter(|(_, txn)| txn.is_split());
    split.map(|(id, _)| Edge {
        from: read_node(id),
        to: write_node(id),
        kind: EdgeKind::Inner,
        key: u32::MAX,
    })
}

/// The node of a transaction, or of its reads if it is two.
pub fn read_node(txn: TxnId) -> usize {
    2 * txn
}

/// The node of its writes.
pub fn write_node(txn: TxnId) -> usize {
    2 * txn + 1
}

impl Edge {
    /// The same in the graph where unchecked transactions are two nodes. Edges are made between first nodes.
    fn split(self, history: &History) -> Edge {
        let is_split = |node: usize| history.txns.get(node / 2).is_some_and(|txn| txn.is_split());
        let write = |node: usize| if is_split(node) { node + 1 } else { node };
        match self.kind {
            EdgeKind::Ww => Edge { from: write(self.from), to: write(self.to), ..self },
            EdgeKind::Wr => Edge { from: write(self.from), ..self },
            EdgeKind::Rw => Edge { to: write(self.to), ..self },
            EdgeKind::RealTime => Edge { from: write(self.from), ..self },
            EdgeKind::Inner => self,
        }
    }
}

/// What kind of anomaly a cycle is.
fn name(history: &History, cycle: &Cycle) -> Anomaly {
    let count = |kind| cycle.edges.iter().filter(|edge| edge.kind == kind).count();
    let transactions = |edge: &&Edge| edge.from / 2 < history.txns.len();
    let data = count(EdgeKind::Wr) + count(EdgeKind::Rw);
    let same_key = || cycle.edges.windows(2).all(|pair| pair[0].key == pair[1].key);
    if count(EdgeKind::RealTime) > 0 && data > 0 {
        return Anomaly::RealTime;
    }
    match (count(EdgeKind::Ww), count(EdgeKind::Wr), count(EdgeKind::Rw)) {
        (_, 0, 0) => Anomaly::G0,
        (_, _, 0) => Anomaly::G1c,
        (1, 0, 1) if cycle.edges.iter().filter(transactions).count() == 2 && same_key() => {
            Anomaly::LostUpdate
        }
        (_, _, 1) => Anomaly::GSingle,
        _ => Anomaly::G2,
    }
}

/// A cycle in words: its transactions and what leads from one to the next.
fn describe(history: &History, cycle: &Cycle) -> String {
    let mut text = format!("{} transactions in a circle; one of", cycle.members);
    for edge in &cycle.edges {
        match history.txns.get(edge.from / 2) {
            Some(txn) => text += &format!("\n    {} of {txn:?}", edge.from / 2),
            None => text += "\n    a moment",
        }
        let key = history.keys.get(edge.key as usize);
        text += &format!("\n      {:?} {}", edge.kind, key.map(|key| format!("{key:?}")).unwrap_or_default());
    }
    text
}
