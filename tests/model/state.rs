//! What the model has at one version.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use chronolith::Timestamp;

use crate::steps::Write;
use crate::{Bounds, Content};

/// All that is there at one version. A metric that exists has an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Their points.
    pub metrics: BTreeMap<usize, BTreeMap<Timestamp, Content>>,
    /// Metadata.
    pub metas: BTreeMap<usize, Vec<u8>>,
}

impl State {
    /// Whether the step has an effect, which it has not on a metric that the same transaction dropped.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(metric, at, value) => self.put(*metric, *at, (value.to_bits(), None)),
            Write::Annotated(metric, at, value, note) => {
                self.put(*metric, *at, (value.to_bits(), note_of(note)))
            }
            Write::Columns(metric, points) => {
                points.iter().for_each(|(at, value)| self.put(*metric, *at, (value.to_bits(), None)));
            }
            Write::Row(at, row) => {
                row.iter().for_each(|(metric, value)| self.put(*metric, *at, (value.to_bits(), None)));
            }
            Write::Delete(metric, bounds) => {
                if let Some(points) = self.metrics.get_mut(metric) {
                    points.retain(|at, _| !bounds.contains(at));
                }
            }
            Write::Drop(metric) => drop(self.metrics.remove(metric)),
            Write::Create(metric) => drop(self.metrics.entry(*metric).or_default()),
            Write::PutMeta(key, value) => drop(self.metas.insert(*key, value.clone())),
            Write::RemoveMeta(key) => drop(self.metas.remove(key)),
        }
    }

    fn put(&mut self, metric: usize, at: Timestamp, content: Content) {
        self.metrics.entry(metric).or_default().insert(at, content);
    }

    /// `contains`, not `range`: bounds may be the wrong way round, which means nothing is in them.
    pub fn read(&self, metric: usize, bounds: &Bounds) -> Vec<(Timestamp, Content)> {
        let points = self.metrics.get(&metric).into_iter().flatten();
        points.filter(|(at, _)| bounds.contains(at)).map(|(at, content)| (*at, content.clone())).collect()
    }
}

/// An empty annotation is none.
fn note_of(bytes: &[u8]) -> Option<Vec<u8>> {
    (!bytes.is_empty()).then(|| bytes.to_vec())
}
