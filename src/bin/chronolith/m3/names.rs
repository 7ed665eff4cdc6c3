//! The namespaces and metrics of an import: those of the database for those of M3.

use std::collections::{HashMap, HashSet};

use chronolith::fileset::Tag;
use chronolith::{Database, Error, Metric, MetricId, Namespace, Result};

use crate::console::Console;
use crate::failure::{Chain, is_of_input};
use crate::ids;
use crate::m3::refused::Refused;
use crate::m3::survey;

/// Notes of one kind that are printed; the rest is only counted.
const NOTES_SHOWN: usize = 5;

/// Names on their way into a database.
#[derive(Debug)]
pub(super) struct Names<'a> {
    db: &'a Database,
    console: Console,
    /// What the metric with the empty ID is to be called.
    empty_id: Option<&'a str>,
    /// By name; `None` if the database cannot have it.
    namespaces: HashMap<String, Option<Namespace>>,
    pub(super) metrics: HashSet<MetricId>,
    /// Metrics with other tags than somewhere in M3's files.
    pub(super) retagged: HashSet<MetricId>,
    /// What the database cannot have: points, metrics or namespaces.
    pub(super) refused: Refused,
}

impl<'a> Names<'a> {
    pub(super) fn new(db: &'a Database, console: Console, empty_id: Option<&'a str>) -> Self {
        let namespaces = HashMap::new();
        let (metrics, retagged, refused) = (HashSet::new(), HashSet::new(), Refused::default());
        Names { db, console, empty_id, namespaces, metrics, retagged, refused }
    }

    /// The database's namespace of this name; `None` if it cannot have one.
    pub(super) fn namespace(&mut self, name: &str) -> Result<Option<Namespace>> {
        if let Some(known) = self.namespaces.get(name) {
            return Ok(known.clone());
        }
        let namespace = match self.db.namespace(name) {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                self.refuse(error, format_args!("namespace {}", ids::readable(name.as_bytes())))?;
                None
            }
        };
        self.namespaces.insert(name.to_owned(), namespace.clone());
        Ok(namespace)
    }

    /// How many namespaces there were.
    pub(super) fn namespace_count(&self) -> u64 {
        self.namespaces.len() as u64
    }

    /// The database's metric of this ID and these tags; `None` if it cannot have one. Tags that are `None` cannot be read.
    ///
    /// An ID that is known with other tags keeps those: in M3, too, the ID alone says which metric it is.
    pub(super) fn metric(
        &mut self,
        namespace: &Namespace,
        id: &[u8],
        tags: Option<&[Tag<'_>]>,
    ) -> Result<Option<Metric>> {
        let renamed = match (id, self.empty_id) {
            ([], Some(chosen)) => Some(chosen.as_bytes().to_vec()),
            ([], None) => survey::known_empty_id(self.db, namespace.name()),
            _ => None,
        };
        let id = renamed.as_deref().unwrap_or(id);
        let named = match tags {
            Some(tags) => self.db.metric_with_id(namespace, id, tags),
            None => Err(Error::InvalidTags { reason: "the bytes in the commit log are no tags" }),
        };
        let named = match named {
            Err(error @ (Error::TagsDiffer(_) | Error::InvalidTags { .. })) => {
                let named = match self.db.metric_with_id(namespace, id, &[] as &[Tag<'_>]) {
                    Err(Error::TagsDiffer(_)) => self.db.metric_in(namespace, id),
                    named => named,
                };
                if let Ok(metric) = &named {
                    self.note_other_tags(metric, &error);
                }
                named
            }
            named => named,
        };
        match named {
            Ok(metric) => {
                self.metrics.insert(metric.id());
                Ok(Some(metric))
            }
            Err(error) => {
                let what = match id {
                    [] => format!("{namespace}: the metric with the empty ID; --empty-id ID gives it one"),
                    id => format!("{namespace}:{}", ids::shortened(&ids::readable(id), 80)),
                };
                self.refuse(error, what)?;
                Ok(None)
            }
        }
    }

    /// Notes, once for each metric, that its tags are not those in M3's files.
    fn note_other_tags(&mut self, metric: &Metric, error: &Error) {
        if !self.retagged.insert(metric.id()) {
            return;
        }
        let known = self.retagged.len();
        if known <= NOTES_SHOWN {
            let (namespace, name) = (metric.namespace().name(), ids::readable(metric.name()));
            self.console.note(format_args!("note: some tags of {namespace}:{name} are not kept: {error}"));
        } else if known == NOTES_SHOWN + 1 {
            self.console.note("further metrics of that kind are only counted");
        }
    }

    /// Notes that the database cannot have something.
    ///
    /// # Errors
    /// Those that are not about what it was given.
    pub(super) fn refuse(&mut self, error: Error, what: impl std::fmt::Display) -> Result<()> {
        if !is_of_input(&error) {
            return Err(error);
        }
        self.refused.insert(format!("{what} ({})", Chain(&error)));
        Ok(())
    }
}
