//! The volumes of a database in the folder of another one: files that do not change need no copy where two names can lead to one.

use std::io::ErrorKind;
use std::path::Path;

use super::place::Place;
use super::{SealedVolume, VolumeStore};
use crate::error::{Error, Result};
use crate::fileset::VolumeFile;
use crate::io::Linked;
use crate::names::Namespace;

/// What was put into a store from another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) volumes: u64,
    /// Files that got a second name.
    pub(crate) linked: u64,
    /// Files of which there is a copy, and their bytes.
    pub(crate) copied: u64,
    pub(crate) copied_bytes: u64,
}

impl VolumeStore {
    /// Puts a volume of another store, of the same database, in its place in this one. The folders' names are durable, those of the files after
    /// [`sync_folders`](VolumeStore::sync_folders).
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a file is missing that each volume has. [`Error::Io`].
    pub(crate) fn adopt(
        &self,
        volume: &SealedVolume,
        namespace: &Namespace,
        adopted: &mut Adopted,
    ) -> Result<()> {
        let from = volume.place();
        let to = Place::new(self.folder(), volume.block(), namespace);
        self.make_folder(&to.folder)?;
        for file in VolumeFile::ALL {
            let name = from.name.file_name(file);
            if !self.link(from, &to, &name, adopted)? {
                return Err(missing(&from.folder.join(name)));
            }
        }
        // A volume is readable without it.
        self.link(from, &to, &from.name.supplement_file_name(), adopted)?;
        adopted.volumes += 1;
        Ok(())
    }

    /// Makes the names of all files durable that were put into the store.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn sync_folders(&self) -> Result<()> {
        self.shard_folders().iter().try_for_each(|folder| self.disk().sync_dir(folder))
    }

    /// `false` if there is no such file.
    fn link(&self, from: &Place, to: &Place, name: &str, adopted: &mut Adopted) -> Result<bool> {
        match self.disk().link(&from.folder.join(name), &to.folder.join(name)) {
            Ok(Linked::Named) => adopted.linked += 1,
            Ok(Linked::Copied(bytes)) => {
                adopted.copied += 1;
                adopted.copied_bytes += bytes;
            }
            Err(error) if error.io_kind() == Some(ErrorKind::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

fn missing(path: &Path) -> Error {
    let (format, reason) = ("fileset volume", "the file is missing");
    Error::Corrupt { format, path: path.to_owned(), offset: 0, metric: None, reason }
}
