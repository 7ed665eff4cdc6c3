//! How many of a volume's metrics could be read.

use chronolith::METRIC_ID_BYTES_MAX;
use chronolith::fileset::Volume;

use crate::console::{counted, thousands};

/// How many metrics the volume was written with, as its info file says, or its supplement, or an index that is whole; `None` if none of them is
/// sound.
///
/// Cost: where only the index is left, a pass over it.
pub(crate) fn written(volume: &Volume) -> Option<u64> {
    let info = volume.info().map(|info| info.entries);
    info.or_else(|| volume.supplement().map(|supplement| supplement.metrics())).or_else(|| {
        // Behind all others, so that the answer vouches for the index as a whole.
        let behind = vec![0xff; METRIC_ID_BYTES_MAX + 1];
        let is_whole = matches!(volume.find(&behind), Ok(None));
        is_whole.then(|| volume.entries().flatten().count() as u64)
    })
}

/// `184 metrics`, `151 of 184 metrics`, or `151 metrics` of nobody knows how many.
pub(crate) fn told(read: u64, written: Option<u64>) -> String {
    match written.filter(|written| *written != read) {
        Some(written) => format!("{} of {}", thousands(read), counted(written, "metric")),
        None => counted(read, "metric"),
    }
}
