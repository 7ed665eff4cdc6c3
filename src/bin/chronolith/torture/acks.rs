//! Acknowledgements, and what they tell about the versions of all ops.

use std::collections::BTreeMap;
use std::fmt;

/// The acknowledgement of one durable op; its text is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ack {
    /// The seed of the workload.
    pub(crate) seed: u64,
    /// Whose op.
    pub(crate) writer: u32,
    /// Its number.
    pub(crate) number: u64,
    /// The version of its commit.
    pub(crate) version: u64,
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ack { seed, writer, number, version } = self;
        write!(f, "ack seed={seed} writer={writer} op={number} version={version}")
    }
}

impl Ack {
    /// The acknowledgement that a line is.
    pub(crate) fn parse(line: &str) -> Option<Ack> {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok();
        let (seed, writer, number, version) =
            (field("seed")?, field("writer")?, field("op")?, field("version")?);
        let whole = words.next().is_none();
        whole.then_some(Ack { seed, writer: u32::try_from(writer).ok()?, number, version })
    }
}

/// The versions that are known: those of the acknowledged ops.
pub(crate) struct Lines {
    /// By writer and number.
    versions: BTreeMap<(u32, u64), u64>,
    /// The store's version.
    last: u64,
}

/// The versions that an op can have had: one if it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Lines {
    /// What is wrong with the acknowledgements themselves goes to `found`.
    pub(crate) fn new(
        acks: &[Ack],
        last: u64,
        progress: &BTreeMap<u32, u64>,
        found: &mut Vec<String>,
    ) -> Lines {
        let mut versions = BTreeMap::new();
        let mut ops: BTreeMap<u64, &Ack> = BTreeMap::new();
        for ack in acks {
            let present = progress.get(&ack.writer).copied().unwrap_or(0);
            if ack.number > present {
                found.push(format!("{ack}: lost, the store ends at op {present} of this writer"));
            }
            if ack.version > last {
                found.push(format!("{ack}: the store's version is only {last}"));
            }
            if let Some(other) = ops.insert(ack.version, ack).filter(|other| *other != ack) {
                found.push(format!("{ack}: has the version of {other}"));
            }
            if versions
                .insert((ack.writer, ack.number), ack.version)
                .is_some_and(|other| other != ack.version)
            {
                found.push(format!("{ack}: acknowledged with two versions"));
            }
        }
        for (before, after) in versions.iter().zip(versions.iter().skip(1)) {
            if before.0.0 == after.0.0 && before.1 >= after.1 {
                found.push(format!("versions of writer {} fall: {before:?}, then {after:?}", before.0.0));
            }
        }
        Lines { versions, last }
    }

    /// An op's own version, or what its writer's acknowledged ops before and after it leave.
    pub(crate) fn span(&self, writer: u32, number: u64) -> Span {
        if let Some(version) = self.versions.get(&(writer, number)) {
            return Span { first: *version, last: *version };
        }
        let before = self.versions.range((writer, 0)..(writer, number)).next_back();
        let after = self.versions.range((writer, number)..=(writer, u64::MAX)).next();
        let first = before.map_or(number, |((_, op), version)| version.saturating_add(number - op));
        let last = after.map_or(self.last, |((_, op), version)| version.saturating_sub(op - number));
        Span { first, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_one_line() {
        let ack = Ack { seed: u64::MAX, writer: 3, number: 17, version: 40 };
        assert_eq!(ack.to_string(), "ack seed=18446744073709551615 writer=3 op=17 version=40");
        assert_eq!(Ack::parse(&ack.to_string()), Some(ack));
        for line in [
            "",
            "ack",
            "ack seed=1 writer=2 op=3",
            "ack seed=1 writer=2 op=3 version=4 5",
            "ack seed=-1 writer=2 op=3 version=4",
        ] {
            assert_eq!(Ack::parse(line), None, "{line}");
        }
    }

    #[test]
    fn an_op_without_line_lies_between_its_neighbours() {
        let ack = |number, version| Ack { seed: 1, writer: 0, number, version };
        let mut found = Vec::new();
        let lines = Lines::new(&[ack(3, 10), ack(6, 20)], 50, &BTreeMap::from([(0, 8)]), &mut found);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(lines.span(0, 3), Span { first: 10, last: 10 });
        assert_eq!(lines.span(0, 4), Span { first: 11, last: 18 });
        assert_eq!(lines.span(0, 1), Span { first: 1, last: 8 });
        assert_eq!(lines.span(0, 8), Span { first: 22, last: 50 });
        assert_eq!(lines.span(1, 2), Span { first: 2, last: 50 });
    }

    #[test]
    fn lines_that_cannot_be_are_found() {
        let ack = |writer, number, version| Ack { seed: 1, writer, number, version };
        let check = |acks: &[Ack]| {
            let mut found = Vec::new();
            Lines::new(acks, 20, &BTreeMap::from([(0, 5), (1, 5)]), &mut found);
            found.len()
        };
        assert_eq!(check(&[ack(0, 1, 4), ack(1, 1, 5), ack(0, 2, 6)]), 0);
        assert_eq!(check(&[ack(0, 6, 4)]), 1, "lost");
        assert_eq!(check(&[ack(0, 5, 21)]), 1, "newer than the store");
        assert_eq!(check(&[ack(0, 1, 4), ack(1, 1, 4)]), 1, "one version twice");
        assert_eq!(check(&[ack(0, 1, 4), ack(0, 2, 3)]), 1, "falling");
    }
}
