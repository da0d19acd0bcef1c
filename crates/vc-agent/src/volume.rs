//! Files that are copied into the guest, and how full its file systems are.

use vc_types::GuestPath;

/// Makes a file of the guest, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFile<'a> {
    /// Where, below `/run`.
    pub path: GuestPath,
    /// What it is.
    pub content: FileContent<'a>,
    /// Its permission bits, such as 0o644; a link has none.
    pub mode: u32,
    /// The permission bits of directories that are missing above it.
    pub directory_mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileContent<'a> {
    /// A piece of a regular file.
    Regular {
        /// The length of the whole file, in bytes.
        size: u64,
        /// Where the piece begins.
        offset: u64,
        /// The piece, at most [`FileContent::MAX_PIECE`] bytes.
        data: &'a [u8],
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: &'a str,
    },
}

impl FileContent<'_> {
    /// The longest piece that is sent at once, in bytes.
    pub const MAX_PIECE: usize = 1 << 20;
}

/// How full a file system is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// Bytes, if the guest tells.
    pub bytes: Option<VolumeUsage>,
    /// Inodes, if the guest tells.
    pub inodes: Option<VolumeUsage>,
    /// What is wrong with it, in the guest's words; `None` when nothing is.
    pub fault: Option<String>,
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// In all.
    pub total: u64,
    /// Taken.
    pub used: u64,
    /// Left for users other than root.
    pub available: u64,
}
