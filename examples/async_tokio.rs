//! How to use a database from async code.
//!
//! A commit waits for the disk, so it must not run on an async worker thread. Two ways to keep it off:
//!
//! * now and then: [`tokio::task::spawn_blocking`], one commit to a call;
//! * many small writes: a thread of their own behind a channel. Whatever has come in while it was committing goes into its next transaction, so
//!   that one sync serves all of them.
//!
//! Reading is different: beginning a snapshot is loading a pointer, and readers never wait for writers. Short reads
//! run right where they are needed. A long one lets other tasks run between its blocks.
//!
//! `cargo run --example async_tokio`

use std::sync::Arc;

use chronolith::{Database, Error, Metric, Timestamp, Version};
use tokio::sync::{mpsc, oneshot};

/// Writes staged in one transaction at most: keeps the wait of the first one short.
const BATCH_POINTS: usize = 4096;
/// Writes that may wait; more, and senders wait. Memory stays bounded however slow the disk is.
const QUEUE_POINTS: usize = 1024;

const SENSORS: usize = 8;
const POINTS_PER_SENSOR: i64 = 500;

/// A write on its way to the writer thread. Many share one commit, hence one error: `Arc`.
struct Write {
    metric: Metric,
    at: Timestamp,
    value: f64,
    done: oneshot::Sender<Result<Version, Arc<Error>>>,
}

/// The writer thread: ends when every sender is gone.
fn write_all(db: &Database, mut queue: mpsc::Receiver<Write>) {
    while let Some(first) = queue.blocking_recv() {
        let mut txn = db.begin_write();
        let mut waiting = Vec::new();
        let mut staged = Ok(());
        let mut next = Some(first);
        while let Some(write) = next {
            staged = staged.and_then(|()| txn.append(&write.metric, write.at, write.value));
            waiting.push(write.done);
            next = if waiting.len() < BATCH_POINTS { queue.try_recv().ok() } else { None };
        }
        let result = staged.and_then(|()| txn.commit()).map_err(Arc::new);
        for done in waiting {
            // Whoever no longer waits for the answer does not get it.
            let _ = done.send(result.clone());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("metrics");
    // Opening reads the log: it blocks.
    let db = tokio::task::spawn_blocking(move || Database::open(path)).await??;

    // Many tasks, many small writes, one writer thread.
    let (queue, incoming) = mpsc::channel(QUEUE_POINTS);
    let writer = std::thread::spawn({
        let db = db.clone();
        move || write_all(&db, incoming)
    });
    let mut sensors = Vec::new();
    for number in 0..SENSORS {
        let metric = db.metric_with_tags("temperature", &[("sensor", &number.to_string())])?;
        sensors.push(tokio::spawn(sense(metric, queue.clone())));
    }
    drop(queue);

    // Reading in between, without blocking anybody and without being blocked: each snapshot is one consistent cut of all sensors.
    for sensor in sensors {
        let snapshot = db.snapshot();
        let (version, metrics) = (snapshot.version().get(), snapshot.metrics().count());
        println!("meanwhile: version {version}, {metrics} metrics");
        sensor.await?.map_err(|error| error.to_string())?;
    }
    writer.join().map_err(|_| "the writer thread panicked")?;

    // A commit now and then.
    let version = tokio::task::spawn_blocking({
        let db = db.clone();
        move || {
            let mut txn = db.begin_write();
            txn.put_meta(b"sensors/finished", b"yes")?;
            txn.commit()
        }
    })
    .await??;

    // A long read. Blocks are owned, so nothing is held across the await.
    let snapshot = db.snapshot();
    let (mut points, mut sum) = (0, 0.0);
    for metric in snapshot.metrics() {
        for block in snapshot.blocks(&metric, ..) {
            let block = block?;
            points += block.len();
            sum += block.values().iter().sum::<f64>();
            tokio::task::yield_now().await;
        }
    }
    println!("afterwards: version {}, {points} points, mean {:.2}", version.get(), sum / points as f64);
    assert_eq!(points, SENSORS * POINTS_PER_SENSOR as usize);

    drop(snapshot);
    // Closing makes everything durable: it blocks too.
    tokio::task::spawn_blocking(move || db.close()).await??;
    Ok(())
}

/// A task that writes, and waits until each of its points is durable.
async fn sense(
    metric: Metric,
    queue: mpsc::Sender<Write>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut answers = Vec::new();
    for second in 0..POINTS_PER_SENSOR {
        let (done, answer) = oneshot::channel();
        let at = Timestamp::from_secs(1_700_000_000 + second);
        let value = 20.0 + (second % 60) as f64 / 10.0;
        queue.send(Write { metric: metric.clone(), at, value, done }).await?;
        answers.push(answer);
    }
    for answer in answers {
        answer.await??;
    }
    Ok(())
}
