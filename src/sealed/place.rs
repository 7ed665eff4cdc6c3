//! Where a volume lies: `NAMESPACE[@WIDTH][@before]/SHARD/`.
//!
//! Each such folder is a namespace to M3, with blocks of one width. Names of folders are in `design/sealing.md`, "Widths". What [`NamespaceFolder`]
//! writes it parses, and nothing else.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::BlockVolume;
use crate::fileset::VolumeName;
use crate::names::{Namespace, NamespaceId};

const DAY_NS: i64 = 86_400_000_000_000;
/// The longest escaped name of a namespace, in bytes, that is the name of a folder: with what comes behind it, it has to be a file system's
/// 255.
const ESCAPED_BYTES_MAX: usize = 200;
/// In front of a namespace's number, where its name is too long.
const NUMBER_PREFIX: char = '+';
const BEFORE_SUFFIX: &str = "@before";

/// The files of one volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The folder of its shard.
    pub(super) folder: PathBuf,
    pub(super) name: VolumeName,
}

impl Place {
    pub(super) fn new(data: &Path, block: &BlockVolume, namespace: &Namespace) -> Self {
        debug_assert_eq!(block.namespace, namespace.id());
        let folder = data.join(NamespaceFolder::of(block, namespace).to_string());
        Place { folder: folder.join(block.shard.to_string()), name: block.name() }
    }

    /// The paths of all files that it may have.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.name.file_names().map(|name| self.folder.join(name))
    }
}

/// The shard whose folder has this name.
pub(super) fn parse_shard(name: &str) -> Option<u32> {
    let shard: u32 = name.parse().ok()?;
    (shard.to_string() == name).then_some(shard)
}

/// The folder of a namespace's volumes of one width. `Display` is its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamespaceFolder<'a> {
    pub(super) namespace: Label<'a>,
    /// `None` for the namespace's own block size.
    pub(super) width_ns: Option<i64>,
    /// Whether its blocks start at 1970 or before. M3 can neither name them nor read a point at 0.
    is_before: bool,
}

/// What a folder is called for a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label<'a> {
    Name(Cow<'a, str>),
    /// Of a namespace whose escaped name is too long.
    Number(NamespaceId),
}

impl<'a> NamespaceFolder<'a> {
    fn of(block: &BlockVolume, namespace: &'a Namespace) -> Self {
        let is_own = block.width_ns == namespace.options().block_ns;
        NamespaceFolder {
            namespace: match fits(namespace.name()) {
                true => Label::Name(namespace.name().into()),
                false => Label::Number(namespace.id()),
            },
            width_ns: (!is_own).then_some(block.width_ns),
            is_before: block.cover.first <= 0,
        }
    }

    /// The folder with this name; `None` if no namespace's folder has it.
    pub(super) fn parse(name: &str) -> Option<NamespaceFolder<'static>> {
        let (rest, is_before) = match name.strip_suffix(BEFORE_SUFFIX) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (label, width_ns) = match rest.split_once('@') {
            Some((label, width)) => (label, Some(parse_width(width)?)),
            None => (rest, None),
        };
        let namespace = match label.strip_prefix(NUMBER_PREFIX) {
            Some(number) => Label::Number(NamespaceId(number.parse().ok()?)),
            None => Label::Name(unescape(label)?.into()),
        };
        let is_possible = match &namespace {
            Label::Name(namespace) => !namespace.is_empty() && fits(namespace),
            Label::Number(_) => true,
        };
        let folder = NamespaceFolder { namespace, width_ns, is_before };
        // Numbers and escapes have one spelling.
        (is_possible && folder.to_string() == name).then_some(folder)
    }
}

impl fmt::Display for NamespaceFolder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Label::Name(name) => escaped(name).try_for_each(|part| f.write_str(&part))?,
            Label::Number(id) => write!(f, "{NUMBER_PREFIX}{}", id.0)?,
        }
        match self.width_ns {
            None => {}
            Some(ns) if ns % DAY_NS == 0 => write!(f, "@{}d", ns / DAY_NS)?,
            Some(ns) => write!(f, "@{ns}ns")?,
        }
        f.write_str(if self.is_before { BEFORE_SUFFIX } else { "" })
    }
}

fn parse_width(text: &str) -> Option<i64> {
    let width_ns = match text.strip_suffix("ns") {
        Some(ns) => ns.parse().ok()?,
        None => text.strip_suffix('d')?.parse::<i64>().ok()?.checked_mul(DAY_NS)?,
    };
    (width_ns > 0).then_some(width_ns)
}

/// Whether a namespace's folder is called by its name.
fn fits(namespace: &str) -> bool {
    escaped(namespace).map(|part| part.len()).sum::<usize>() <= ESCAPED_BYTES_MAX
}

/// A name as parts of a folder's name: bytes of [`is_plain`] as they are, others as `%` and two digits.
fn escaped(name: &str) -> impl Iterator<Item = Cow<'static, str>> {
    name.bytes().enumerate().map(|(at, byte)| match is_plain(byte, at == 0) {
        true => char::from(byte).to_string().into(),
        false => format!("%{byte:02X}").into(),
    })
}

/// Folders named `.` and `..`, and hidden ones, begin with a dot.
fn is_plain(byte: u8, is_first: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (byte == b'.' && !is_first)
}

/// What was escaped to this, or something else if nothing was.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        name.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::partition_map::Cover;
    use crate::mvcc::transaction::Version;
    use crate::mvcc::window::Window;
    use crate::names::{NAMESPACE_NAME_BYTES_MAX, Names, NamespaceOptions};
    use crate::sealed::VolumeId;
    use proptest::prelude::*;

    const HOURS: i64 = 3_600_000_000_000;

    fn folder_of(name: &str, block_ns: i64, width_ns: i64, cover: Cover) -> PathBuf {
        let options = NamespaceOptions { block_ns, shards: 4 };
        let namespace = Names::new(1, options).namespace(name, options).expect("a name");
        let (id, freeze) = (VolumeId(0), Version(1));
        let block = BlockVolume {
            id,
            namespace: namespace.id(),
            shard: 3,
            cover,
            width_ns,
            number: 0,
            freeze,
            is_empty: false,
        };
        Place::new(Path::new("data"), &block, &namespace).folder
    }

    #[test]
    fn folders_are_those_of_the_design_page() {
        let now = |width| Window::new(width).of(1_700_000_000_000_000_000);
        let at_epoch = |width| Window::new(width).of(0);
        for (name, width, cover, expected) in [
            ("cpu", 2 * HOURS, now(2 * HOURS), "data/cpu/3"),
            ("cpu", DAY_NS, now(DAY_NS), "data/cpu@1d/3"),
            ("cpu", 30 * DAY_NS, now(30 * DAY_NS), "data/cpu@30d/3"),
            ("cpu", 12 * HOURS, now(12 * HOURS), "data/cpu@43200000000000ns/3"),
            ("cpu", 2 * HOURS, at_epoch(2 * HOURS), "data/cpu@before/3"),
            ("cpu", 30 * DAY_NS, at_epoch(30 * DAY_NS), "data/cpu@30d@before/3"),
            ("cpu", DAY_NS, Window::new(DAY_NS).of(-1), "data/cpu@1d@before/3"),
            ("cpu", 2 * HOURS, Window::new(2 * HOURS).of(2 * HOURS), "data/cpu/3"),
            ("..", 2 * HOURS, now(2 * HOURS), "data/%2E./3"),
            ("a/../b", 2 * HOURS, now(2 * HOURS), "data/a%2F..%2Fb/3"),
            ("a@1d", 2 * HOURS, now(2 * HOURS), "data/a%401d/3"),
            ("Été_1-x.y", 2 * HOURS, now(2 * HOURS), "data/%C3%89t%C3%A9_1-x.y/3"),
        ] {
            assert_eq!(folder_of(name, 2 * HOURS, width, cover), Path::new(expected), "{name}");
        }
        assert_eq!(folder_of("cpu", DAY_NS, DAY_NS, now(DAY_NS)), Path::new("data/cpu/3"));
        let long = "é".repeat(NAMESPACE_NAME_BYTES_MAX / 2);
        assert_eq!(folder_of(&long, DAY_NS, 30 * DAY_NS, now(DAY_NS)), Path::new("data/+1@30d/3"));
    }

    #[test]
    fn names_that_no_folder_has_are_not_parsed() {
        for foreign in [
            "",
            ".",
            "..",
            ".hidden",
            "a b",
            "a/b",
            "é",
            "a%2",
            "a%2e",
            "a%2f",
            "a%41",
            "%ff",
            "%FF",
            "a%",
            "%é",
            "+",
            "+-1",
            "++1",
            "+01",
            "+4294967296",
            "a@",
            "a@1",
            "a@d",
            "a@0d",
            "a@01d",
            "a@+1d",
            "a@-1d",
            "a@before@before",
            "a@before@1d",
            "a@1d@2d",
            "a@86400000000000ns",
            "a@1h",
            "@before",
            "@1d",
        ] {
            assert_eq!(NamespaceFolder::parse(foreign), None, "{foreign}");
        }
        assert_eq!(NamespaceFolder::parse(&"%20".repeat(67)), None, "it would have its number");
        assert!(NamespaceFolder::parse(&"%20".repeat(66)).is_some());
        assert_eq!(["0", "17", "4294967295"].map(parse_shard), [Some(0), Some(17), Some(u32::MAX)]);
        assert_eq!(["01", "+1", "-0", "", "x", "4294967296"].map(parse_shard), [None; 6]);
    }

    fn width() -> impl Strategy<Value = Option<i64>> {
        prop_oneof![
            Just(None),
            (1..=i64::MAX / DAY_NS).prop_map(|days| Some(days * DAY_NS)),
            (1..=i64::MAX).prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn every_folder_is_parsed_as_it_was_written(
            name in "\\PC{1,40}|[ -~]{1,255}",
            number in any::<u32>(),
            width_ns in width(),
            is_before in any::<bool>(),
        ) {
            let by_name = Label::Name(name.as_str().into());
            let label = if fits(&name) { by_name } else { Label::Number(NamespaceId(number)) };
            let folder = NamespaceFolder { namespace: label, width_ns, is_before };
            let written = folder.to_string();
            prop_assert!(written.len() <= 255 && !written.starts_with('.'), "{written}");
            prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'\\'));
            prop_assert_eq!(NamespaceFolder::parse(&written), Some(folder));
        }

        #[test]
        fn what_is_parsed_is_written_as_it_was(text in "[a%F2+@.]{0,4}(@1d|@9ns|)(@before|)") {
            if let Some(folder) = NamespaceFolder::parse(&text) {
                prop_assert_eq!(folder.to_string(), text);
            }
        }
    }
}
