//! Folders and names of the disks that live in memory.
//!
//! A [`Tree`] finds paths, and refuses a change for the same reasons as an operating system. A permitted change is a value,
//! a [`NameChange`]: the disk applies it now, keeps it for later or forgets it. A file may have several names; there are no symbolic links. A
//! relative path starts at the root, and `..` takes back the name before it, whatever that is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The longest name in a folder, in bytes, as on most file systems.
const NAME_BYTES_MAX: usize = 255;

/// A folder, wherever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FolderId(u64);

impl FolderId {
    const ROOT: FolderId = FolderId(0);
}

/// A name in a folder, taken or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: FolderId,
    pub(super) name: OsString,
}

/// What a name stands for; `F` is a handle to a file.
#[derive(Clone, Debug)]
enum Node<F> {
    Folder(FolderId),
    File(F),
}

/// A change of names.
#[derive(Clone, Debug)]
pub(super) enum NameChange<F> {
    MakeFolder { at: Place, folder: FolderId },
    Link { at: Place, file: F },
    Unlink { at: Place },
    Rename { from: Place, to: Place },
}

impl<F> NameChange<F> {
    /// The folders whose names change: one, or two for a rename from one to another.
    pub(super) fn folders(&self) -> impl Iterator<Item = FolderId> {
        let (first, second) = match self {
            NameChange::MakeFolder { at, .. } | NameChange::Link { at, .. } | NameChange::Unlink { at } => {
                (at, None)
            }
            NameChange::Rename { from, to } => (from, (to.folder != from.folder).then_some(to.folder)),
        };
        std::iter::once(first.folder).chain(second)
    }
}

/// Folders, and the names in them.
#[derive(Clone, Debug)]
pub(super) struct Tree<F> {
    folders: BTreeMap<FolderId, BTreeMap<OsString, Node<F>>>,
    /// Larger than every id in use.
    next: u64,
}

impl<F: Clone> Tree<F> {
    /// A root without names.
    pub(super) fn new() -> Self {
        Tree { folders: BTreeMap::from([(FolderId::ROOT, BTreeMap::new())]), next: FolderId::ROOT.0 + 1 }
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// `IsADirectory` if it is a folder, `NotADirectory` if something above it is a file.
    pub(super) fn file(&self, path: &Path) -> io::Result<Option<F>> {
        match self.find(path)? {
            None => Ok(None),
            Some(Node::File(file)) => Ok(Some(file)),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The folder at `path`.
    ///
    /// # Errors
    /// `NotADirectory` if it, or something above it, is a file.
    pub(super) fn folder(&self, path: &Path) -> io::Result<Option<FolderId>> {
        match self.find(path)? {
            None => Ok(None),
            Some(Node::Folder(folder)) => Ok(Some(folder)),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The names in the folder at `path`, sorted.
    ///
    /// # Errors
    /// As for [`Tree::folder`].
    pub(super) fn names(&self, path: &Path) -> io::Result<Option<Vec<OsString>>> {
        let folder = self.folder(path)?;
        Ok(folder.map(|folder| self.entries(folder).map(|(name, _)| name.clone()).collect()))
    }

    /// All files with their paths from the root, in the order of their paths' names.
    pub(super) fn files(&self) -> Vec<(PathBuf, F)> {
        let mut files = Vec::new();
        self.walk(FolderId::ROOT, Path::new("/"), &mut |path, node| {
            if let Node::File(file) = node {
                files.push((path.to_owned(), file.clone()));
            }
        });
        files
    }

    /// All folders below the root, as [`Tree::files`].
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        self.walk(FolderId::ROOT, Path::new("/"), &mut |path, node| {
            if let Node::Folder(_) = node {
                folders.push(path.to_owned());
            }
        });
        folders
    }

    /// The same names for other files. Folders that have no name any more are left out.
    pub(super) fn map_files<G>(&self, mut map: impl FnMut(&F) -> G) -> Tree<G> {
        let mut tree = Tree { folders: BTreeMap::new(), next: self.next };
        let mut todo = vec![FolderId::ROOT];
        while let Some(folder) = todo.pop() {
            let mut names = BTreeMap::new();
            for (name, node) in self.entries(folder) {
                let node = match node {
                    Node::File(file) => Node::File(map(file)),
                    Node::Folder(inner) => {
                        todo.push(*inner);
                        Node::Folder(*inner)
                    }
                };
                names.insert(name.clone(), node);
            }
            tree.folders.insert(folder, names);
        }
        tree
    }

    /// The changes that make a folder, and those above it that are missing.
    ///
    /// # Errors
    /// `AlreadyExists` if it is a file, `NotADirectory` if something above it is one.
    pub(super) fn make_folders(&self, path: &Path) -> io::Result<Vec<NameChange<F>>> {
        let names = names_of(path)?;
        let mut changes = Vec::new();
        let mut folder = FolderId::ROOT;
        for (depth, name) in names.iter().enumerate() {
            folder = match self.entry(folder, name) {
                Some(Node::Folder(inner)) => *inner,
                Some(Node::File(_)) if depth + 1 == names.len() => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let inner = FolderId(self.next + changes.len() as u64);
                    let at = Place { folder, name: (*name).to_owned() };
                    changes.push(NameChange::MakeFolder { at, folder: inner });
                    inner
                }
            };
        }
        Ok(changes)
    }

    /// The change that gives `file` its name.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, `NotFound` without the folder, `NotADirectory` if something above is a file.
    pub(super) fn link(&self, path: &Path, file: F) -> io::Result<NameChange<F>> {
        let at = self.place(path)?;
        match self.entry(at.folder, &at.name) {
            None => Ok(NameChange::Link { at, file }),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// The change that takes a file's name away, and the file; `None` if there is no such file.
    ///
    /// # Errors
    /// As for [`Tree::file`].
    pub(super) fn unlink(&self, path: &Path) -> io::Result<Option<(NameChange<F>, F)>> {
        match self.file(path)? {
            None => Ok(None),
            Some(file) => Ok(Some((NameChange::Unlink { at: self.place(path)? }, file))),
        }
    }

    /// The change that renames a file, and the file that it replaces; `None` if both names are the same.
    ///
    /// # Errors
    /// `NotFound` without `from` or without the folder of `to`, `IsADirectory` if either is a folder, `NotADirectory` if
    /// something above is a file.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<Option<(NameChange<F>, Option<F>)>> {
        if self.file(from)?.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (from, replaced) = (self.place(from)?, self.file(to)?);
        let to = self.place(to)?;
        Ok((from != to).then_some((NameChange::Rename { from, to }, replaced)))
    }

    /// Makes a change. One that was permitted by another tree takes effect as far as it can here.
    pub(super) fn apply(&mut self, change: &NameChange<F>) {
        match change {
            NameChange::MakeFolder { at, folder } => {
                self.folders.entry(*folder).or_default();
                self.next = self.next.max(folder.0 + 1);
                self.put(at, Node::Folder(*folder));
            }
            NameChange::Link { at, file } => self.put(at, Node::File(file.clone())),
            NameChange::Unlink { at } => drop(self.take(at)),
            NameChange::Rename { from, to } => {
                if let Some(node) = self.take(from) {
                    self.put(to, node);
                }
            }
        }
    }

    fn put(&mut self, at: &Place, node: Node<F>) {
        // The folder may be without a name yet: names inside a new folder can be durable before its own.
        self.folders.entry(at.folder).or_default().insert(at.name.clone(), node);
    }

    fn take(&mut self, at: &Place) -> Option<Node<F>> {
        self.folders.get_mut(&at.folder)?.remove(&at.name)
    }

    fn find(&self, path: &Path) -> io::Result<Option<Node<F>>> {
        let mut node = Node::Folder(FolderId::ROOT);
        for name in names_of(path)? {
            let Node::Folder(folder) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            match self.entry(folder, name) {
                None => return Ok(None),
                Some(inner) => node = inner.clone(),
            }
        }
        Ok(Some(node))
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        let mut names = names_of(path)?;
        let Some(name) = names.pop() else { return Err(io::ErrorKind::IsADirectory.into()) };
        let above: PathBuf = names.into_iter().collect();
        let folder = self.folder(&above)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Place { folder, name: name.to_owned() })
    }

    fn entry(&self, folder: FolderId, name: &OsStr) -> Option<&Node<F>> {
        self.folders.get(&folder)?.get(name)
    }

    fn entries(&self, folder: FolderId) -> impl Iterator<Item = (&OsString, &Node<F>)> {
        self.folders.get(&folder).into_iter().flatten()
    }

    fn walk(&self, folder: FolderId, path: &Path, visit: &mut impl FnMut(&Path, &Node<F>)) {
        for (name, node) in self.entries(folder) {
            let path = path.join(name);
            visit(&path, node);
            if let Node::Folder(inner) = node {
                self.walk(*inner, &path, visit);
            }
        }
    }
}

/// The names on the way from the root to `path`; none for the root.
///
/// # Errors
/// `InvalidInput` for a NUL, `InvalidFilename` for a name that is too long.
fn names_of(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => drop(names.pop()),
            Component::Prefix(_) | Component::Normal(_) => names.push(component.as_os_str()),
        }
    }
    for name in &names {
        let bytes = name.as_encoded_bytes();
        if bytes.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name with a zero byte"));
        }
        if bytes.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
    }
    Ok(names)
}
