//! Write, commit, read.
use chronolith::{Database, Timestamp};
fn main() -> chronolith::Result<()> {
    let db = Database::open(std::env::temp_dir().join("chronolith-quickstart"))?;
    let load = db.metric_with_tags("load", &[("host", "a")])?;
    let mut txn = db.begin_write();
    for second in 0..60 {
        txn.append(&load, Timestamp::from_secs(1_700_000_000 + second), second as f64 / 10.0)?;
    }
    txn.commit()?; // atomic over any number of metrics, and durable once it returns
    for point in db.snapshot().range(&load, Timestamp::from_secs(1_700_000_057)..) {
        println!("{:?}", point?);
    }
    Ok(())
}
