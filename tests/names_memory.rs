//! What names take in memory, under a counting allocator: an ID's bytes are kept once, its tags not at all if it says them, and nothing of a metric that was
//! dropped.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;

use chronolith::{Database, Metric};

/// Counts the bytes that this thread holds. Tests run in threads of their own.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may free when its counter is gone.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call is handed on to the system's allocator as it came. Counting allocates nothing: the counter is a constant of the thread
// without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.get()
}

/// An ID of 95 bytes with five tags.
fn long_id(n: u32) -> String {
    let id = format!(
        "cpu_usage_idle{{core=\"{:03}\",dc=\"eu-west-{}\",host=\"host-{:06}\",job=\"node{n:012}\",rack=\"r{:03}\"}}",
        n % 64,
        n % 9,
        n % 10_000,
        n % 100
    );
    assert_eq!(id.len(), 95);
    id
}

/// Makes a metric of each ID in one commit.
fn make(db: &Database, ids: impl Iterator<Item = String>) -> Vec<Metric> {
    let metrics: Vec<Metric> = ids.map(|id| db.metric(id).expect("valid")).collect();
    let mut txn = db.begin_write();
    metrics.iter().for_each(|metric| txn.create_metric(metric).expect("staged"));
    txn.commit().expect("commits");
    metrics
}

/// What a metric without points takes, in bytes, when nobody has a handle.
fn bytes_of(id: fn(u32) -> String) -> isize {
    const METRICS: u32 = 100_000;
    let db = Database::in_memory().expect("opens");
    let before = held();
    (0..METRICS / 10_000).for_each(|part| drop(make(&db, (part * 10_000..(part + 1) * 10_000).map(id))));
    (held() - before) / METRICS as isize
}

#[test]
fn an_id_is_kept_once_and_tags_that_it_says_are_not() {
    let short = bytes_of(|n| format!("m{n:07}"));
    let long = bytes_of(long_id);
    let more = long - short;
    println!("a metric with an ID of 8 bytes takes {short} bytes, one with 95 bytes {long}");
    assert!((87..=92).contains(&more), "87 bytes more of ID take {more}");
}

#[test]
fn names_of_metrics_that_come_and_go_take_no_more_and_more() {
    const A_DAY: u32 = 10_000;
    let db = Database::in_memory().expect("opens");
    let mut alive: VecDeque<Vec<Metric>> = VecDeque::new();
    let mut after = Vec::new();
    for day in 0..25 {
        alive.push_back(make(&db, (day * A_DAY..(day + 1) * A_DAY).map(long_id)));
        if alive.len() > 2 {
            let gone = alive.pop_front().expect("three days");
            let mut txn = db.begin_write();
            gone.iter().for_each(|metric| txn.drop_metric(metric).expect("staged"));
            txn.commit().expect("commits");
        }
        after.push(held());
    }
    // What else is kept for each number that was ever given is not of names, and less than one would be.
    let ever = (after[24] - after[4]) / (20 * A_DAY) as isize;
    println!("{ever} bytes for each metric that was dropped");
    assert!(ever < 80, "{ever} bytes for each metric that was dropped");
}
