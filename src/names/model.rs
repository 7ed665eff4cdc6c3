//! The dictionary against what a map would be: random names, commits, drops and restarts of reading.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 1, shards: 300 };

#[derive(Clone, Debug)]
enum Step {
    /// Names a metric, and keeps the handle.
    Name(usize),
    /// Lets go of a handle.
    LetGo(usize),
    /// Makes all metrics that there are handles of.
    Make,
    /// Drops a metric by its handle.
    Drop(usize),
    /// Has the names leave that were dropped until so many versions ago.
    Forget(u64),
    /// Puts a metric back.
    Restore(usize, u32),
}

/// What the model knows of an id.
#[derive(Clone, Debug)]
struct Known {
    name: usize,
    made: bool,
    dropped: Option<u64>,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..40usize).prop_map(Step::Name),
        6 => (0..200usize).prop_map(Step::LetGo),
        2 => Just(Step::Make),
        6 => (0..200usize).prop_map(Step::Drop),
        2 => (0..5u64).prop_map(Step::Forget),
        2 => (0..40usize, 0..3_000u32).prop_map(|(name, id)| Step::Restore(name, id)),
    ]
}

/// Short and long IDs, with tags that follow from them and without.
fn id(name: usize) -> Vec<u8> {
    match name % 3 {
        0 => format!("m{name}").into_bytes(),
        1 => format!("m{{k=\"{name}\",l=\"{}\"}}", "v".repeat(name * 20)).into_bytes(),
        _ => vec![name as u8; name * 40],
    }
}

/// And their own.
fn own_tags(name: usize) -> Option<Tags> {
    (name % 3 == 2).then(|| Tags::new(&[(b"own", &vec![b'v'; name])]).expect("valid"))
}

proptest! {
    #[test]
    fn the_dictionary_is_a_map(steps in prop::collection::vec(step(), 1..300)) {
        let names = Names::new(7, OPTIONS);
        let namespace = names.namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        let mut known: BTreeMap<u32, Known> = BTreeMap::new();
        let mut dropped: VecDeque<(u64, u32)> = VecDeque::new();
        let mut handles: Vec<Metric> = Vec::new();
        let (mut next, mut version) = (0, 1);
        for step in steps {
            match step {
                Step::Name(name) => {
                    let tags = own_tags(name);
                    let list: Vec<_> = tags.iter().flat_map(Tags::iter).collect();
                    let metric = match tags {
                        Some(_) => names.metric_with_id(&namespace, &id(name), &list).expect("the same tags"),
                        None => names.metric(&namespace, &id(name)).expect("valid"),
                    };
                    let newest = known.iter().rev().find(|(_, known)| known.name == name);
                    match newest.filter(|(_, known)| known.dropped.is_none()) {
                        // One that nobody made may have left if nobody had a handle.
                        Some((id, known)) if *id != metric.id().get() => {
                            let is_held = handles.iter().any(|handle| handle.id().get() == *id);
                            prop_assert!(!known.made && !is_held);
                            prop_assert_eq!(metric.id().get(), next);
                        }
                        Some(_) => {}
                        None => prop_assert_eq!(metric.id().get(), next),
                    }
                    next = next.max(metric.id().get() + 1);
                    let new = Known { name, made: metric.is_created(), dropped: None };
                    known.entry(metric.id().get()).or_insert(new);
                    handles.push(metric);
                }
                Step::LetGo(handle) if !handles.is_empty() => {
                    handles.swap_remove(handle % handles.len());
                }
                Step::Make => {
                    version += 1;
                    for metric in handles.iter().filter(|metric| !metric.is_dropped()) {
                        metric.set_created(Version(version));
                        known.get_mut(&metric.id().get()).expect("named").made = true;
                    }
                }
                Step::Drop(handle) if !handles.is_empty() => {
                    let metric = &handles[handle % handles.len()];
                    if metric.is_created() && !metric.is_dropped() {
                        version += 1;
                        names.set_dropped(std::iter::once(metric.id()), Version(version));
                        known.get_mut(&metric.id().get()).expect("named").dropped = Some(version);
                        dropped.push_back((version, metric.id().get()));
                    }
                }
                Step::Forget(ago) => {
                    while names.forget_dropped(Version(version.saturating_sub(ago))) {}
                    while let Some((_, id)) = dropped.front().filter(|(at, _)| *at + ago <= version).copied() {
                        dropped.pop_front();
                        known.remove(&id);
                    }
                }
                Step::Restore(name, id_number) => {
                    // As recovery does: a name gets a higher number each time, and none while it stands for a metric.
                    let is_in_the_way = |(id, known): (&u32, &Known)| {
                        known.name == name && (known.dropped.is_none() || *id > id_number)
                    };
                    if !known.contains_key(&id_number) && !known.iter().any(is_in_the_way) {
                        version += 1;
                        let tags = own_tags(name);
                        let number = MetricId(id_number);
                        let shard = names.restore_metric(number, NamespaceId(0), &id(name), tags.as_ref(), Version(version));
                        let expected = Sharding { shards: 300, seed: 0 }.shard_of(&id(name));
                        prop_assert_eq!(shard, Some(expected));
                        known.insert(id_number, Known { name, made: true, dropped: None });
                        next = next.max(id_number + 1);
                    }
                }
                Step::LetGo(_) | Step::Drop(_) => {}
            }
            prop_assert_eq!(names.metrics(), next);
        }
        // All that is known is as it was given, and found by its name.
        for (number, Known { name, made, dropped }) in &known {
            let Some(metric) = names.metric_by_id(MetricId(*number)) else {
                let is_held = handles.iter().any(|handle| handle.id().get() == *number);
                prop_assert!(!made && !is_held, "{} left", number);
                continue;
            };
            prop_assert_eq!(metric.name(), id(*name));
            prop_assert_eq!(metric.own_tags().cloned(), own_tags(*name));
            prop_assert_eq!((metric.is_created(), metric.is_dropped()), (*made, dropped.is_some()));
            prop_assert!(names.ids_of(NamespaceId(0), &id(*name)).contains(&metric));
        }
        for name in 0..40 {
            let ids: Vec<u32> = names.ids_of(NamespaceId(0), &id(name)).iter().map(|m| m.id().get()).collect();
            prop_assert!(ids.is_sorted_by(|newer, older| newer > older), "{:?}", ids);
            prop_assert!(ids.iter().all(|id| known.get(id).is_some_and(|known| known.name == name)));
        }
        // Handles outlive all of it.
        for metric in &handles {
            prop_assert!(!metric.name().is_empty() && metric.tags().len() <= 2);
        }
    }
}
