//! Commits ops of the workload and says which of them are durable.
//!
//! * A store keeps the seed of its first run; a later run goes on with it, and each writer after its last op that is
//!   there.
//! * An op that fails is tried again, never passed over: so the ops in a store have no gaps.
//! * An op with `Durability::Sync` is acknowledged when its commit returns. A weaker one is acknowledged when a later
//!   commit or sync of the same writer has proved it durable: recovery keeps a prefix of all commits.

use std::io;

use chronolith::{Database, Durability, Error, Metric, Point, Result, Version, WriteTransaction};

use super::acks::Ack;
use super::oracle::{SEED_KEY, resolve as resolve_in, seed_of};
use super::workload::{Account, Edit, Kind, NAMESPACE, Op, Seals, Target, account_timestamp, progress_key};

/// How often an op is tried again because another writer dropped a metric under it, or changed what it read.
const RETRIES: usize = 1000;

/// Why a writer cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database refused.
    Database(Error),
    /// The store's metadata is not that of a torture run.
    Store(String),
    /// An acknowledgement could not be handed out.
    Output(io::Error),
}

impl Failure {
    /// Whether the same op can simply be tried again.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Failure::Database(Error::DiskFull { .. }))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Database(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut cause: Option<&dyn std::error::Error> = match self {
            Failure::Database(error) => Some(error),
            Failure::Output(error) => Some(error),
            Failure::Store(text) => return f.write_str(text),
        };
        let mut separator = "";
        while let Some(error) = cause {
            write!(f, "{separator}{error}")?;
            separator = ": ";
            cause = error.source();
        }
        Ok(())
    }
}

/// Readies a store for the workload: names its seed and makes the second namespace, unless both are there. Returns
/// the store's seed.
///
/// # Errors
/// Those of the commits, and [`Failure::Store`] if the seed's metadata is something else.
pub(crate) fn begin(db: &Database, seed: u64) -> Result<u64, Failure> {
    let kept = seed_of(&db.snapshot()).map_err(Failure::Store)?;
    if kept.is_none() {
        let mut txn = db.begin_write();
        txn.set_durability(Durability::Sync);
        txn.put_meta(SEED_KEY, seed.to_string().as_bytes())?;
        txn.commit()?;
    }
    db.namespace(NAMESPACE)?;
    Ok(kept.unwrap_or(seed))
}

/// One writer of the workload.
#[derive(Debug)]
pub(crate) struct Writer {
    seed: u64,
    writer: u32,
    /// The number of the op to do next.
    next: u64,
    /// Done, but not known to be durable.
    pending: Vec<Ack>,
    seals: bool,
}

impl Writer {
    /// The writer that goes on after its last op in the store.
    ///
    /// # Errors
    /// [`Failure::Store`] if its progress is not a number.
    pub(crate) fn resume(db: &Database, seed: u64, writer: u32) -> Result<Writer, Failure> {
        let last = match db.snapshot().meta(progress_key(writer)) {
            None => 0,
            Some(bytes) => {
                std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                    Failure::Store(format!("the progress of writer {writer} is {}", bytes.escape_ascii()))
                })?
            }
        };
        Ok(Writer { seed, writer, next: last + 1, pending: Vec::new(), seals: false })
    }

    /// Does the next op, and acknowledges what has become durable.
    ///
    /// # Errors
    /// Those of the commit, and of a seal that stopped the database; the op is then done by the next call.
    pub(crate) fn step(
        &mut self,
        db: &Database,
        acknowledge: &mut impl Acknowledge,
    ) -> Result<Kind, Failure> {
        let op = Op::of(self.seed, self.writer, self.next);
        if let Some(Seals { range, refresh }) = op.seals.clone().filter(|_| self.seals) {
            let sealed = if refresh { db.refresh(range) } else { db.seal(range) };
            // Any other failure leaves everything as it was.
            if let Err(error @ (Error::Stopped { .. } | Error::Corrupt { .. })) = sealed {
                return Err(error.into());
            }
        }
        if self.seals && op.number.is_multiple_of(CHECKPOINT_EVERY) {
            let written = db.checkpoint();
            // If only the checkpoint failed, the log has everything still.
            if let Err(error) = written
                && db.stats().stopped
            {
                return Err(error.into());
            }
        }
        let version = commit(db, &op)?;
        self.next += 1;
        let Op { writer, number, .. } = op;
        self.pending.push(Ack { seed: self.seed, writer, number, version: version.get() });
        if op.durability == Durability::Sync {
            self.settle(acknowledge)?;
        }
        Ok(op.kind)
    }

    /// The same writer, which also seals blocks now and then.
    pub(crate) fn sealing(self) -> Self {
        Writer { seals: true, ..self }
    }

    /// Whether a backup is to be taken after the op that was done last: one of the writers does now and then.
    pub(crate) fn is_time_for_backup(&self) -> bool {
        self.writer == 0 && self.next.is_multiple_of(BACKUP_EVERY)
    }

    /// Acknowledges all that was done: everything has been made durable.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub(crate) fn settle(&mut self, acknowledge: &mut impl Acknowledge) -> Result<(), Failure> {
        self.pending.drain(..).try_for_each(|ack| acknowledge.acknowledge(ack)).map_err(Failure::Output)
    }
}

/// Each so many ops a writer that seals writes a checkpoint too.
const CHECKPOINT_EVERY: u64 = 16;

/// After each so many of its ops the first writer takes a backup, if there is a place for it.
const BACKUP_EVERY: u64 = 24;

/// Where acknowledgements go.
pub(crate) trait Acknowledge {
    /// The op is durable.
    ///
    /// # Errors
    /// Those of handing it out.
    fn acknowledge(&mut self, ack: Ack) -> io::Result<()>;
}

impl Acknowledge for Vec<Ack> {
    fn acknowledge(&mut self, ack: Ack) -> io::Result<()> {
        self.push(ack);
        Ok(())
    }
}

/// Stages and commits an op, again if another writer drops one of its metrics meanwhile, or changes an account that it read.
fn commit(db: &Database, op: &Op) -> Result<Version, Failure> {
    let mut attempts = 0..RETRIES;
    loop {
        let mut txn = if op.kind == Kind::Transfer { db.begin_checked() } else { db.begin_write() };
        txn.set_durability(op.durability);
        if op.kind == Kind::Transfer {
            check_sum(&txn)?;
        }
        let staged = op.edits.iter().try_for_each(|edit| stage(db, &mut txn, edit));
        match staged.and_then(|()| Ok(txn.commit()?)) {
            Err(Failure::Database(Error::MetricDropped(_) | Error::Conflict { .. }))
                if attempts.next().is_some() => {}
            result => return result,
        }
    }
}

/// Whether all accounts together have nothing, as they do at every version. Their sum is taken in the snapshot, where it is no read that the
/// transaction's commit compares.
fn check_sum(txn: &WriteTransaction) -> Result<(), Failure> {
    let snapshot = txn.snapshot();
    let mut sum = 0;
    for account in Account::all() {
        sum += match account {
            Account::Point(metric) => match resolve_in(snapshot, metric) {
                Some(metric) => balance_of(snapshot.at_or_before(&metric, account_timestamp())?),
                None => 0,
            },
            Account::Meta(key) => balance_in(snapshot.meta(&key))?,
        };
    }
    match sum {
        0 => Ok(()),
        sum => Err(Failure::Store(format!("at version {} all accounts have {sum}", snapshot.version()))),
    }
}

fn balance_of(point: Option<Point>) -> i64 {
    point.map_or(0, |point| point.value as i64)
}

fn balance_in(meta: Option<&[u8]>) -> Result<i64, Failure> {
    let Some(bytes) = meta else { return Ok(0) };
    let balance = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    balance.ok_or_else(|| Failure::Store(format!("an account has {}", bytes.escape_ascii())))
}

fn stage(db: &Database, txn: &mut WriteTransaction, edit: &Edit) -> Result<(), Failure> {
    let staged = match edit {
        Edit::Append(metric, at, value) => txn.append(&resolve(db, *metric)?, *at, *value),
        Edit::Annotated(metric, at, value, note) => {
            txn.append_annotated(&resolve(db, *metric)?, *at, *value, note)
        }
        Edit::Columns(metric, at, values) => txn.append_columns(&resolve(db, *metric)?, at, values),
        Edit::Row(at, row) => {
            let row = row.iter().map(|(metric, value)| Ok((resolve(db, *metric)?, *value)));
            txn.append_row(*at, &row.collect::<Result<Vec<_>>>()?)
        }
        Edit::Delete(metric, bounds) => txn.delete(&resolve(db, *metric)?, *bounds),
        Edit::Drop(metric) => txn.drop_metric(&resolve(db, *metric)?),
        Edit::Create(metric) => txn.create_metric(&resolve(db, *metric)?),
        Edit::PutMeta(key, value) => txn.put_meta(key, value),
        Edit::RemoveMeta(key) => txn.remove_meta(key),
        Edit::Add(Account::Point(metric), amount) => {
            let (metric, at) = (resolve(db, *metric)?, account_timestamp());
            let balance = balance_of(txn.at_or_before(&metric, at)?);
            txn.append(&metric, at, (balance + amount) as f64)
        }
        Edit::Add(Account::Meta(key), amount) => {
            let balance = balance_in(txn.meta(key).as_deref())?;
            txn.put_meta(key, (balance + amount).to_string())
        }
    };
    Ok(staged?)
}

fn resolve(db: &Database, target: Target) -> Result<Metric> {
    match target.namespace() {
        None => db.metric_with_tags(target.name(), target.tags()),
        Some(namespace) => db.metric_with_tags_in(&db.namespace(namespace)?, target.name(), target.tags()),
    }
}
