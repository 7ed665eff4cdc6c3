//! Seal when the program says so, write late, refresh, and ask how it is.
use chronolith::{Options, SealScope, Timestamp};
use std::ops::ControlFlow;
fn main() -> chronolith::Result<()> {
    let path = std::env::temp_dir().join("chronolith-sealing");
    let db = Options::new().workers(0).open(path)?; // no thread: nothing happens by itself
    let load = db.metric("load")?;
    let mut txn = db.begin_write();
    for second in 0..3600 {
        txn.append(&load, Timestamp::from_secs(second), 0.5)?;
    }
    txn.commit()?;
    db.maintain(Timestamp::now())?; // seals what the clock and the latest point have left: nothing yet
    let first_hours = SealScope::all().within(..Timestamp::from_secs(7200));
    let report = db.seal_with(first_hours, |progress| {
        println!("{} of {} volumes", progress.done, progress.blocks);
        ControlFlow::Continue(())
    })?;
    println!("{} points sealed, {} in memory", report.points, db.stats().points);
    db.append(&load, Timestamp::from_secs(60), 0.7)?; // late: in memory, above the volume
    db.refresh(..)?; // and into the next volume
    println!("{:?}, {}", db.sealed_stats(), db.health()); // ok, or what is wrong and what to do
    Ok(())
}
