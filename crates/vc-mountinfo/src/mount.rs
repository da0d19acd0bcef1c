//! One mount, whichever way it was found.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use crate::DeviceNumber;
use crate::bytes::{os_str, path};
use crate::mountinfo::Entry;
use crate::sys::statmount::{Answer, ask};

/// What to ask of a mount beyond its ids, device, type, source and read-only flag.
///
/// Each is dear in its own way, so ask only for what is needed. Where the kernel has to be asked through
/// mountinfo all of them come anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Also fill [`Mount::mount_point`].
    pub mount_point: bool,
    /// Also fill [`Mount::root`].
    pub root: bool,
    /// Also fill [`Mount::fs_options`]; with an overlay of many layers the dearest of all.
    pub fs_options: bool,
}

impl Fields {
    /// Everything.
    pub const ALL: Self = Self { mount_point: true, root: true, fs_options: true };

    /// The bits to ask `statmount` for.
    pub(crate) fn mask(self) -> u64 {
        let mut mask = ask::SB_BASIC
            | ask::MNT_BASIC
            | ask::FS_TYPE
            | ask::FS_SUBTYPE
            | ask::SB_SOURCE
            | ask::SUPPORTED_MASK;
        for (wanted, bit) in
            [(self.mount_point, ask::MNT_POINT), (self.root, ask::MNT_ROOT), (self.fs_options, ask::MNT_OPTS)]
        {
            if wanted {
                mask |= bit;
            }
        }
        mask
    }
}

/// One mount. Names are decoded, as bytes: they need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount<'a> {
    /// The id mountinfo shows; used again for another mount after an unmount.
    pub id: u32,
    /// The id of the mount this one is on.
    pub parent_id: u32,
    /// The id that is never used again, where the kernel has one (Linux 6.8).
    pub unique_id: Option<u64>,
    /// The device of the filesystem.
    pub device: DeviceNumber,
    /// The type, such as `erofs`, or `fuse.sshfs` with its subtype.
    pub fs_type: Cow<'a, OsStr>,
    /// The source as the mounter gave it: relative, a symlink, any text, or empty.
    pub source: Cow<'a, OsStr>,
    /// Whether nothing can be written through this mount.
    pub read_only: bool,
    /// Where it is mounted, from the caller's root; `None` if not asked for, or out of reach from there.
    pub mount_point: Option<Cow<'a, Path>>,
    /// The path within the filesystem that is mounted; `None` if not asked for.
    pub root: Option<Cow<'a, Path>>,
    /// The filesystem's own options, still with octal escapes (a literal comma is `\054`) and without
    /// flags such as `ro`; `None` if not asked for.
    pub fs_options: Option<Cow<'a, OsStr>>,
}

impl<'a> Mount<'a> {
    /// Copies what is borrowed.
    pub fn into_owned(self) -> Mount<'static> {
        fn own<T: ToOwned + ?Sized + 'static>(text: Cow<'_, T>) -> Cow<'static, T> {
            Cow::Owned(text.into_owned())
        }
        Mount {
            id: self.id,
            parent_id: self.parent_id,
            unique_id: self.unique_id,
            device: self.device,
            fs_type: own(self.fs_type),
            source: own(self.source),
            read_only: self.read_only,
            mount_point: self.mount_point.map(own),
            root: self.root.map(own),
            fs_options: self.fs_options.map(own),
        }
    }

    /// Reads the answer to [`Fields::mask`].
    ///
    /// A string that the kernel leaves out is empty (an empty source) or out of reach (a mount point).
    pub(crate) fn from_answer(answer: &Answer<'a>, fields: Fields) -> Self {
        const SB_RDONLY: u32 = 1;
        const MOUNT_ATTR_RDONLY: u64 = 1;
        let [id, parent_id] = answer.ids();
        let [major, minor] = answer.device();
        let text = |bit| os_str(Cow::Borrowed(answer.string(bit).unwrap_or_default()));
        let fs_type = match (answer.string(ask::FS_TYPE), answer.string(ask::FS_SUBTYPE)) {
            (Some(fs_type), Some(subtype)) => os_str(Cow::Owned([fs_type, b".", subtype].concat())),
            (fs_type, _) => os_str(Cow::Borrowed(fs_type.unwrap_or_default())),
        };
        Self {
            id,
            parent_id,
            unique_id: Some(answer.unique_id()),
            device: DeviceNumber::new(major, minor),
            fs_type,
            source: text(ask::SB_SOURCE),
            read_only: answer.superblock_flags() & SB_RDONLY != 0
                || answer.attributes() & MOUNT_ATTR_RDONLY != 0,
            mount_point: answer.string(ask::MNT_POINT).map(|point| path(Cow::Borrowed(point))),
            root: answer.string(ask::MNT_ROOT).map(|root| path(Cow::Borrowed(root))),
            fs_options: fields.fs_options.then(|| text(ask::MNT_OPTS)),
        }
    }
}

impl<'a> From<Entry<'a>> for Mount<'a> {
    fn from(entry: Entry<'a>) -> Self {
        Self {
            id: entry.id,
            parent_id: entry.parent_id,
            unique_id: None,
            device: entry.device,
            fs_type: entry.fs_type(),
            source: entry.source(),
            read_only: entry.is_read_only(),
            mount_point: Some(entry.mount_point()),
            root: Some(entry.root()),
            fs_options: Some(os_str(Cow::Borrowed(entry.fs_options()))),
        }
    }
}
