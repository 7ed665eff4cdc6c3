//! The verb `settings`, run as its users run it.
#![cfg(feature = "cli")]

#[macro_use]
mod runner;

use std::ffi::OsString;

use chronolith::Database;
use runner::{Place, run};

const CSV: &str = "series,ts_ms,value\na,1700000000000,1\n";

#[test]
fn settings_are_shown_and_changed_and_kept() {
    let place = Place::imported(CSV);
    let before = run(args!["--json", "settings", place.db()]).ends(0).json();
    assert_eq!((&before["durability"], &before["buffer_past"]), (&"sync".into(), &600.0.into()));
    let changed =
        args!["--json", "settings", place.db(), "--set", "memory_max=64MiB", "--set", "durability=250ms"];
    let changed = run(changed).ends(0).json();
    assert_eq!((&changed["memory_max"], &changed["durability"]), (&(64 << 20).into(), &0.25.into()));
    assert_eq!(run(args!["--json", "settings", place.db()]).ends(0).json(), changed);
    let text = run(args!["settings", place.db()]).ends(0).text();
    assert!(
        text.lines().any(|line| line.starts_with("durability") && line.ends_with("within 250.0 ms")),
        "{text}"
    );
    assert!(text.lines().any(|line| line.starts_with("memory_max") && line.ends_with("64.0 MiB")), "{text}");
    let db = Database::open(place.db()).expect("opens");
    assert_eq!(db.settings().memory_max, Some(64 << 20));
}

#[test]
fn what_is_no_setting_changes_nothing() {
    let place = Place::imported(CSV);
    let before = run(args!["settings", place.db()]).ends(0).text();
    for wrong in ["memory_max=64MB", "shards=3", "memory_max", "memory_max=1"] {
        let refused = run(args!["settings", place.db(), "--set", "refresh_bytes=1", "--set", wrong]);
        refused.ends(2).stderr_has(wrong.split('=').next().expect("a name"));
    }
    assert_eq!(run(args!["settings", place.db()]).ends(0).text(), before);
    run(args!["settings", place.at("absent")]).ends(3).stderr_has("does not exist");
    run(args!["settings", place.db(), "--read-only", "--set", "refresh_bytes=1"]).ends(2);
    run(args!["checkpoint", place.db()]).ends(0);
    assert_eq!(run(args!["settings", place.db(), "--read-only"]).ends(0).text(), before);
}
