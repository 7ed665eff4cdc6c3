//! What is recorded of transactions.

use std::collections::HashMap;

/// A transaction's place in [`History::txns`].
pub type TxnId = usize;
/// A key's place in [`History::keys`].
pub type KeyId = u32;
/// What a write leaves behind, unique in the history.
pub type Element = u64;
/// Which metric a name stands for; 0 where a key has nothing to do with names.
pub type Incarnation = u32;

/// What transactions write to and read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A window of time of a metric.
    List { metric: u32, window: u32 },
    /// A timestamp of a metric.
    Register { metric: u32, window: u32 },
    /// A metric ID, with the metrics that it stood for.
    Name(u32),
    /// A piece of metadata: a register without a time.
    Meta(u32),
}

impl Key {
    /// What is there before anything is written.
    pub fn initial(self) -> Option<Incarnation> {
        match self {
            Key::List { .. } | Key::Register { .. } | Key::Meta(_) => Some(0),
            Key::Name(_) => None,
        }
    }
}

/// What a transaction did to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds an element to a list; makes the incarnation if it is not there.
    Append { key: KeyId, incarnation: Incarnation, element: Element },
    /// Replaces a register's element.
    Set { key: KeyId, element: Element },
    /// Removes all elements of a list or a register.
    Clear { key: KeyId },
    /// Makes an incarnation of a name; no effect if it is there.
    Create { key: KeyId, incarnation: Incarnation },
    /// Ends an incarnation of a name; no effect if it is not there.
    Drop { key: KeyId, incarnation: Incarnation },
    /// Sees the elements of a key in no order; of a name also the incarnation, or none.
    Read { key: KeyId, incarnation: Option<Incarnation>, elements: Vec<Element> },
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> KeyId {
        match *self {
            Op::Append { key, .. } | Op::Set { key, .. } | Op::Clear { key } => key,
            Op::Create { key, .. } | Op::Drop { key, .. } | Op::Read { key, .. } => key,
        }
    }
}

/// What a transaction asks for, which is what it is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It only reads, all at one version.
    Snapshot,
    /// It only writes, all at one version.
    Blind,
    /// It reads at one version and writes at a later one.
    Unchecked,
    /// It fails if what it read has changed when it is to be committed: so it reads and writes at one version.
    Checked,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed. A snapshot has the version of what it read.
    Committed { version: u64, durable: bool },
    /// Rolled back, or refused: it did not happen.
    Failed,
    /// Refused because what it read had changed; a snapshot that is taken then shows the change.
    Conflict,
    /// The log stopped: not visible before the database is reopened, then there entirely or not at all.
    Unknown,
}

/// A transaction as its thread saw it.
#[derive(Clone, Debug)]
pub struct Txn {
    pub kind: Kind,
    /// When it began, before its snapshot was taken, and when it had ended: ticks of one clock of all threads.
    pub began: u64,
    pub ended: u64,
    /// The version of its snapshot; `None`: not known, then only the dependencies speak.
    pub snapshot: Option<u64>,
    pub outcome: Outcome,
    /// What it did, in this order.
    pub ops: Vec<Op>,
}

impl Txn {
    /// The version of its commit.
    pub fn version(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Committed { version, .. } => Some(version),
            Outcome::Failed | Outcome::Conflict | Outcome::Unknown => None,
        }
    }

    /// Whether it reads at one place and writes at another.
    pub fn is_split(&self) -> bool {
        self.kind == Kind::Unchecked
    }
}

/// All transactions from one opening of a database to its end. What was there at the beginning is a transaction too.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub txns: Vec<Txn>,
    pub keys: Vec<Key>,
    ids: HashMap<Key, KeyId>,
}

impl History {
    /// The number of a key, given out when it is first asked for.
    pub fn key(&mut self, key: Key) -> KeyId {
        *self.ids.entry(key).or_insert_with(|| {
            self.keys.push(key);
            (self.keys.len() - 1) as KeyId
        })
    }
}
