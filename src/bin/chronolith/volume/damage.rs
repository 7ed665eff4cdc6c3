//! Damage as it is listed: place by place, but no more than a person would read and memory should hold.

use chronolith::Error;

use crate::console::{Out, counted};
use crate::failure::{Chain, Outcome};

/// Places that are kept; the rest is only counted.
const PLACES_MAX: usize = 1_000;

/// What is damaged, in the order in which it was found.
#[derive(Debug, Default)]
pub(crate) struct DamageList {
    places: Vec<String>,
    more: u64,
}

impl DamageList {
    pub(crate) fn push(&mut self, place: String) {
        if self.places.len() < PLACES_MAX {
            self.places.push(place);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many places there are, those that are only counted among them.
    pub(crate) fn count(&self) -> u64 {
        self.places.len() as u64 + self.more
    }

    /// Those that are kept.
    pub(crate) fn places(&self) -> &[String] {
        &self.places
    }

    /// Adds those of another list behind these.
    pub(crate) fn append(&mut self, other: DamageList) {
        self.extend(other.places);
        self.more += other.more;
    }

    /// A line for each, `indent` columns to the right.
    pub(crate) fn print(&self, indent: usize, out: &mut Out) -> Outcome<()> {
        for place in &self.places {
            out.line(format_args!("{:indent$}damage: {place}", ""))?;
        }
        match self.more {
            0 => Ok(()),
            more => out.line(format_args!("{:indent$}damage: {} more", "", counted(more, "place"))),
        }
    }
}

impl Extend<String> for DamageList {
    fn extend<I: IntoIterator<Item = String>>(&mut self, places: I) {
        places.into_iter().for_each(|place| self.push(place));
    }
}

/// Damage to a metric, which is named here: the error itself names it again, if at all, in another spelling.
pub(crate) fn of_metric(name: impl std::fmt::Display, mut error: Error) -> String {
    if let Error::Corrupt { metric, .. } = &mut error {
        *metric = None;
    }
    format!("metric {name}: {}", Chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_once() {
        let error = Error::Corrupt {
            format: "volume",
            path: "/f".into(),
            offset: 7,
            metric: Some("cpu".into()),
            reason: "it is wrong",
        };
        assert_eq!(of_metric("n:cpu", error), "metric n:cpu: volume /f is corrupt at byte 7: it is wrong");
    }

    #[test]
    fn places_beyond_the_limit_are_counted() {
        let mut list = DamageList::default();
        assert!(list.is_empty());
        list.extend((0..1_005).map(|place| place.to_string()));
        assert_eq!((list.places().len(), list.count()), (1_000, 1_005));
        let mut all = DamageList::default();
        all.push("first".to_owned());
        all.append(list);
        assert_eq!((all.places().len(), all.count()), (1_000, 1_006));
        assert_eq!(all.places()[..2], ["first", "0"]);
    }
}
