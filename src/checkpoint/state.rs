//! The state: what a checkpoint has besides metrics, bases and volumes, as bytes. Format: `design/checkpoint.md`, "State".

use crate::mvcc::lane::Freeze;
use crate::mvcc::partition_map::Cover;
use crate::mvcc::record::{Fields, RecordError, put_bytes, put_signed, put_unsigned};
use crate::mvcc::restore::Restore;
use crate::mvcc::transaction::{Meta, Version};
use crate::names::{MetricId, Namespace, NamespaceId, NamespaceOptions};

use super::active::list;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct State<'a> {
    pub(super) namespaces: &'a [Namespace],
    /// In the order of their versions.
    pub(super) freezes: Vec<(NamespaceId, u32, Freeze)>,
    /// Metrics that were made since the first freeze of their shard, and when.
    pub(super) made: Vec<(MetricId, Version)>,
    pub(super) meta: Option<&'a Meta>,
    /// The number of the next volume.
    pub(super) next_volume: u32,
}

impl State<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_unsigned(&mut bytes, self.namespaces.len() as u64);
        for namespace in self.namespaces {
            let NamespaceOptions { block_ns, shards } = namespace.options();
            put_unsigned(&mut bytes, namespace.id().0.into());
            put_signed(&mut bytes, block_ns);
            put_unsigned(&mut bytes, shards.into());
            put_bytes(&mut bytes, namespace.name().as_bytes());
        }
        put_unsigned(&mut bytes, self.freezes.len() as u64);
        for (namespace, shard, Freeze { block, version }) in &self.freezes {
            put_unsigned(&mut bytes, namespace.0.into());
            put_unsigned(&mut bytes, (*shard).into());
            put_signed(&mut bytes, block.first);
            put_signed(&mut bytes, block.last);
            put_unsigned(&mut bytes, version.get());
        }
        put_unsigned(&mut bytes, self.made.len() as u64);
        for (metric, version) in &self.made {
            put_unsigned(&mut bytes, metric.get().into());
            put_unsigned(&mut bytes, version.get());
        }
        let meta = || self.meta.into_iter().flatten();
        put_unsigned(&mut bytes, meta().count() as u64);
        for (key, value) in meta() {
            put_bytes(&mut bytes, key);
            put_bytes(&mut bytes, value);
        }
        put_unsigned(&mut bytes, self.next_volume.into());
        bytes
    }
}

/// What comes back later than the rest: it is about metrics, which need their namespaces first.
#[derive(Debug, Default)]
pub(crate) struct Freezes {
    freezes: Vec<(NamespaceId, u32, Freeze)>,
    made: Vec<(MetricId, Version)>,
}

impl Freezes {
    /// Puts them back, when the metrics are there.
    pub(crate) fn restore(self, restore: &Restore<'_>) -> Result<(), &'static str> {
        for (namespace, shard, freeze) in self.freezes {
            restore.freeze(namespace, shard, freeze)?;
        }
        self.made.into_iter().for_each(|(metric, version)| restore.made(metric, version));
        Ok(())
    }
}

/// Puts back what the bytes say, all but the freezes.
pub(super) fn decode(bytes: &[u8], restore: &Restore<'_>) -> Result<Freezes, &'static str> {
    let mut fields = Fields(bytes);
    let reason = |error: RecordError| error.0;
    let namespaces: std::result::Result<Vec<_>, _> = list(&mut fields, |fields| {
        let id = NamespaceId(fields.unsigned_32()?);
        let options = NamespaceOptions { block_ns: fields.signed()?, shards: fields.unsigned_32()? };
        let name = std::str::from_utf8(fields.bytes()?);
        Ok((id, name.map_err(|_| RecordError("a namespace's name is not UTF-8"))?, options))
    });
    for (id, name, options) in namespaces.map_err(reason)? {
        restore.namespace(id, name, options)?;
    }
    let freezes: std::result::Result<Vec<_>, _> = list(&mut fields, |fields| {
        let (namespace, shard) = (NamespaceId(fields.unsigned_32()?), fields.unsigned_32()?);
        let block = Cover { first: fields.signed()?, last: fields.signed()? };
        if block.first > block.last {
            return Err(RecordError("a block that ends before it begins"));
        }
        Ok((namespace, shard, Freeze { block, version: Version(fields.unsigned()?) }))
    });
    let freezes = freezes.map_err(reason)?;
    let made: std::result::Result<Vec<_>, _> =
        list(&mut fields, |fields| Ok((MetricId(fields.unsigned_32()?), Version(fields.unsigned()?))));
    let made = made.map_err(reason)?;
    let meta: std::result::Result<Vec<_>, _> =
        list(&mut fields, |fields| Ok((fields.bytes()?, fields.bytes()?)));
    for (key, value) in meta.map_err(reason)? {
        restore.meta(key, value);
    }
    restore.next_volume(fields.unsigned_32().map_err(reason)?);
    match fields.0.is_empty() {
        true => Ok(Freezes { freezes, made }),
        false => Err("bytes behind the state"),
    }
}
