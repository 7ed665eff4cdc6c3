//! What a database cannot have, each told once, but no more than a person would read.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::console::{Out, thousands};
use crate::failure::Outcome;

/// Texts that are kept; the rest is only counted.
const TEXTS_MAX: usize = 1_000;

/// Points, metrics or namespaces that were passed over.
#[derive(Debug, Default)]
pub(super) struct Refused {
    texts: BTreeSet<String>,
    /// Hashes of all texts, so that what several files have counts once.
    seen: HashSet<u64>,
}

impl Refused {
    pub(super) fn insert(&mut self, text: String) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        if self.seen.insert(hasher.finish()) && self.texts.len() < TEXTS_MAX {
            self.texts.insert(text);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// How many there are, those that are only counted among them.
    pub(super) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Those that are kept, sorted.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    /// A line for each.
    pub(super) fn print(&self, out: &mut Out) -> Outcome<()> {
        for text in &self.texts {
            out.line(format_args!("passed over: {text}"))?;
        }
        match self.count() - self.texts.len() as u64 {
            0 => Ok(()),
            more => out.line(format_args!("passed over: {} more", thousands(more))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_counts_once_and_those_beyond_the_limit_are_not_kept() {
        let mut refused = Refused::default();
        assert!(refused.is_empty());
        for _ in 0..2 {
            (0..1_005).for_each(|number| refused.insert(format!("{number:04}")));
        }
        assert_eq!(refused.count(), 1_005);
        let kept: Vec<_> = refused.texts().collect();
        assert_eq!((kept.len(), kept.first(), kept.last()), (1_000, Some(&"0000"), Some(&"0999")));
    }
}
