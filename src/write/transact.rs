//! A checked transaction that is begun again until it commits.

use std::time::Duration;

use super::WriteTransaction;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::mvcc::transaction::Version;

/// After this many attempts there is a pause before the next one.
const ATTEMPTS_AT_ONCE: u32 = 3;
/// The first pause; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_micros(10);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(1);

impl Database {
    /// Runs `change` in a [checked](Database::begin_checked) transaction and commits; after a conflict all over again, until it
    /// commits or [`Options::attempts`](crate::Options::attempts) are used up. Returns what the last run returned, and the version of the
    /// commit, or, if that run changed nothing, of the state that it read.
    ///
    /// If `change` returns an error, the transaction is rolled back and the error returned; [`try_transact`](Database::try_transact) is for errors of
    /// another type. `change` may run several times, so what it does beside the transaction it may do several times. It sees the
    /// state after the commit that it lost against, for which it waits, and after the third attempt it pauses for 10 microseconds to
    /// 1 millisecond more.
    ///
    /// ```
    /// use chronolith::{Database, Timestamp};
    ///
    /// # fn main() -> chronolith::Result<()> {
    /// let db = Database::in_memory()?;
    /// let (from, to) = (db.metric("account{id=\"1\"}")?, db.metric("account{id=\"2\"}")?);
    /// db.append(&from, Timestamp::from_secs(0), 100.0)?;
    ///
    /// let (left, version) = db.transact(|txn| {
    ///     let ours = txn.latest(&from)?.map_or(0.0, |point| point.value);
    ///     let theirs = txn.latest(&to)?.map_or(0.0, |point| point.value);
    ///     let now = Timestamp::from_secs(1);
    ///     txn.append(&from, now, ours - 30.0)?;
    ///     txn.append(&to, now, theirs + 30.0)?;
    ///     Ok(ours - 30.0)
    /// })?;
    /// assert_eq!(left, 70.0);
    /// assert_eq!(db.snapshot().version(), version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// * Those of `change`.
    /// * [`Error::Conflict`] after the last attempt, with their number.
    /// * Those of [`WriteTransaction::commit`]; but if a metric was dropped meanwhile, the next attempt finds its name anew.
    pub fn transact<T>(
        &self,
        change: impl FnMut(&mut WriteTransaction) -> Result<T>,
    ) -> Result<(T, Version)> {
        self.try_transact(change)
    }

    /// As [`Database::transact`], with an error type of the program's own, which an [`Error`] can be turned into.
    ///
    /// ```
    /// use chronolith::{Database, Error, Version};
    ///
    /// #[derive(Debug)]
    /// enum ImportError {
    ///     AlreadyDone,
    ///     Database(Error),
    /// }
    ///
    /// impl From<Error> for ImportError {
    ///     fn from(error: Error) -> Self {
    ///         ImportError::Database(error)
    ///     }
    /// }
    ///
    /// fn claim(db: &Database, file: &str) -> Result<Version, ImportError> {
    ///     let ((), version) = db.try_transact(|txn| {
    ///         if txn.meta(file).is_some() {
    ///             return Err(ImportError::AlreadyDone);
    ///         }
    ///         Ok(txn.put_meta(file, "done")?)
    ///     })?;
    ///     Ok(version)
    /// }
    ///
    /// # fn main() -> Result<(), Error> {
    /// let db = Database::in_memory()?;
    /// assert!(claim(&db, "monday.csv").is_ok());
    /// assert!(matches!(claim(&db, "monday.csv"), Err(ImportError::AlreadyDone)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Database::transact`].
    pub fn try_transact<T, E: From<Error>>(
        &self,
        mut change: impl FnMut(&mut WriteTransaction) -> Result<T, E>,
    ) -> Result<(T, Version), E> {
        let attempts_max = self.engine().options().attempts;
        let mut attempt = 1;
        loop {
            let is_last = attempt >= attempts_max;
            let mut txn = self.begin_checked();
            txn.count_attempt(attempt);
            match change(&mut txn) {
                Err(_) if txn.is_outdated() && !is_last => {
                    drop(txn);
                    self.engine().core().settle()?;
                }
                Err(error) => return Err(error),
                Ok(value) => match txn.commit() {
                    Ok(version) => return Ok((value, version)),
                    // It is returned once the commit behind it is published.
                    Err(Error::Conflict { .. }) if !is_last => {}
                    // A new transaction no longer finds the metric once the drop is published, as above.
                    Err(Error::MetricDropped(_)) if !is_last => self.engine().core().settle()?,
                    Err(error) => return Err(error.into()),
                },
            }
            pause_after(attempt);
            attempt += 1;
        }
    }
}

impl WriteTransaction {
    fn count_attempt(&mut self, attempt: u32) {
        if let Some(checked) = &mut self.checked {
            checked.attempt = Some(attempt);
        }
    }

    /// Whether a write has failed that may succeed in a new transaction.
    fn is_outdated(&self) -> bool {
        self.checked.as_ref().is_some_and(|checked| checked.outdated)
    }
}

/// Lets others finish, so that many who change the same metric do not run over each other for ever.
fn pause_after(attempts: u32) {
    // Time does not pass in a model.
    if attempts >= ATTEMPTS_AT_ONCE && !cfg!(loom) {
        let doublings = (attempts - ATTEMPTS_AT_ONCE).min(16);
        std::thread::sleep(PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX));
    }
}
