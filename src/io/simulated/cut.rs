//! What a power cut leaves.

/// One of the ways in which a power cut can treat what was not synced. Synced bytes and names are there in all of them.
///
/// Unsynced changes of files are writes and changes of length, unsynced changes of names are creation, renaming and removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CutState {
    /// Nothing that was not synced.
    None,
    /// All of it, as if everything had been synced in time. (What a failed sync lost stays lost.)
    All,
    /// All names and lengths, but no bytes: what was added reads as zeros, what was overwritten reads as before.
    NamesOnly,
    /// All bytes and lengths of the files whose names were durable, under these names.
    BytesOnly,
    /// All names, but what was added to files is missing, zeros and all.
    Short,
    /// As [`CutState::NamesOnly`], with random bytes in place of the zeros that were added.
    Garbage,
    /// In each folder a random first part of its changes, and in each file a random choice of its changes, whatever their
    /// order. Some of the writes are torn at sectors of 512 bytes: the first, the last or any of them are there. A write
    /// that is missing may still have changed the length.
    Random,
}

impl CutState {
    /// All of them.
    pub const ALL: [CutState; 7] = [
        CutState::None,
        CutState::All,
        CutState::NamesOnly,
        CutState::BytesOnly,
        CutState::Short,
        CutState::Garbage,
        CutState::Random,
    ];

    /// Whether what is found depends on the seed.
    pub fn is_random(self) -> bool {
        matches!(self, CutState::Garbage | CutState::Random)
    }
}
