//! Planted bugs: mistakes that the checks must catch.
//!
//! A check that has never failed proves nothing. Each [`Bug`] here is one wrong step in the real code, asked for by name when a
//! database is opened; the tests show that it is caught. Without the feature `planted-bugs` (and outside loom) the set is empty
//! at compile time and costs nothing.

/// One wrong step. The comment says what the code does instead of the right thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bug {
    // The commit protocol; the number is the invariant of `design/concurrency.md` that it breaks.
    /// 1: slices are pushed after the log is unlocked.
    PushAfterUnlock,
    /// 2: slices are taken before their lane is locked.
    TakeBeforeLock,
    /// 3: lanes that were busy in the first pass are left to their holder.
    NoSecondPass,
    /// 4: a version is published when it is durable, applied or not.
    PublishWhatIsDurable,
    /// 4: a commit that is applied takes all earlier ones for applied, whatever their lanes.
    MarkOtherLanes,
    /// 5: changes of commits that are published together are applied newest first.
    ChangesOutOfOrder,
    /// 5: changes go into one list for all commits, after the lane is unlocked.
    ChangesInOneList,
    /// 6: a leader does not wake those who wait.
    ForgetNotifyAfterLeading,
    /// 6: a publisher does not wake those who wait.
    ForgetNotifyAfterPublishing,
    /// 7: all that was sequenced by the end of a sync is called durable.
    DurableIsSeq,
    /// 8: a failed log stops behind what is published, not behind what is being published.
    StopIgnoresPublication,
    /// 9: the list of live versions is published before the transaction that it belongs to, with what was held before.
    LiveListBeforeTransaction,
    /// 9: whether a retired transaction is alive is looked at before it is replaced.
    LookBeforeSwap,
    /// 9: a mark goes although its successor is not published.
    PruneUnpublished,
    /// 9: a mark goes although a snapshot holds it.
    IgnoreHeldVersions,
    /// 10: no mark ever goes.
    NeverPrune,
    /// 11: the publisher keeps the transactions that it replaced.
    RetainTransactions,
    /// 14: what a checked commit read is compared without applying first what waits in the lanes.
    NoDrainBeforeComparing,
    /// 14: what a checked commit read is compared before the critical section that gives out its number.
    CompareOutsideLog,
    /// 14: that a metric did not exist is believed at the commit.
    AbsenceUnchecked,
    /// 14: metadata is compared with what is published, not with what is on its way.
    MetaOnItsWayUnchecked,
    /// 14: what a checked commit read holds no version until it is compared, so that names leave that it is compared with.
    ReadsHoldNoVersion,
    /// 15: the log's lock is taken by somebody who holds a lane's.
    LogUnderLane,
    /// 16: a name is called dropped when the drop is published, not when it is sequenced.
    DropAtPublication,
    /// 17: a conflict is returned before a new snapshot shows what changed.
    ConflictBeforePublication,

    // Sealing.
    /// 12: writes go on into what is frozen.
    NoFreeze,
    /// 12: what was frozen is emptied when its volume takes its place, although older snapshots share it.
    DrainFrozen,
    /// 12: an install starts from the map as it was when its block was frozen.
    InstallFreezesMap,
    /// 12: an install changes the published map and not the head's.
    InstallInTreeOnly,
    /// 12: the first slice of an install ends the freeze.
    ThawAtFirstSlice,
    /// 12: an install names its volume also for metrics that were made after the freeze.
    InstallInMadeLater,
    /// 13: a freeze that was stopped counts as published.
    IgnoreStoppedFreeze,
    /// 13: what is frozen is read by a snapshot from before the freeze.
    SnapshotBeforeFreeze,
    /// A volume is installed before its files are complete and durable.
    InstallBeforeVolume,
    /// Superseded volumes are removed before the installs of their successors are durable.
    RemoveBeforeInstallIsDurable,
    /// Opening leaves the volumes that no transaction names.
    KeepOrphans,
    /// Opening does not go on with an install that was interrupted between two slices.
    ForgetUnfinishedInstall,
    /// A checkpoint is named before its pages are durable.
    NameCheckpointUnsynced,
    /// A checkpoint is ahead of what is durable of the log.
    CheckpointUnflushed,

    // Panics, which stop the database.
    /// Applying a point whose value is [`PANIC_VALUE`] panics.
    PanicInSlice,
    /// Validating what a transaction read that also read the metadata [`PANIC_KEY`] panics, with the log and a lane locked.
    PanicInValidation,

    // Long columns.
    /// A stream that is adopted gets no mark.
    AdoptWithoutMark,

    // The files.
    /// A commit is called durable when its record is written, before the sync.
    AcknowledgeBeforeSync,
    /// The commit log is never synced.
    SkipLogSync,
    /// A new segment's name is not made durable before records go into it.
    SkipFolderSync,
    /// Recovery believes payloads without comparing their checksum.
    ForgetChecksum,
    /// A new segment gets its final name before its bytes are synced.
    RenameBeforeSync,
    /// Recovery goes on after a damaged frame instead of cutting there.
    KeepFramesAfterCut,
    /// Recovery ends one frame too early when it finds the end of the log.
    CutOneFrameTooMany,
    /// Recovery trusts bytes that it only knows from the page cache.
    SkipRecoverySync,
}

/// The value of points that panic by [`Bug::PanicInSlice`], and of no others: so a test says which commit panics.
pub const PANIC_VALUE: f64 = -6.02e23;
/// The metadata whose readers panic by [`Bug::PanicInValidation`].
pub const PANIC_KEY: &[u8] = b"planted panic";

/// The planted bugs of one database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    #[cfg(any(loom, feature = "planted-bugs"))]
    set: u64,
}

impl Planted {
    /// This set and one bug more.
    #[cfg(any(loom, feature = "planted-bugs"))]
    #[must_use]
    pub fn with(self, bug: Bug) -> Self {
        Planted { set: self.set | 1 << bug as u64 }
    }

    /// Whether to make this mistake.
    #[inline]
    pub(crate) fn has(self, bug: Bug) -> bool {
        #[cfg(any(loom, feature = "planted-bugs"))]
        return self.set & 1 << bug as u64 != 0;
        #[cfg(not(any(loom, feature = "planted-bugs")))]
        {
            let _ = bug;
            false
        }
    }
}
