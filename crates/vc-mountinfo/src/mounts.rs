//! All mounts, one after the other.

use std::fs::File;
use std::io;

use crate::mount::{Fields, Mount};
use crate::mountinfo::{MountInfoReader, ReadError};
use crate::process::{OWN_TABLE, ProcessView};
use crate::sys::listmount::listmount;
use crate::sys::statmount::Buffer;

/// All mounts of a mount namespace that are reachable from a root, one after the other, each borrowed from one
/// buffer.
///
/// ```
/// use vc_mountinfo::{Fields, Mounts};
///
/// let mut mounts = Mounts::all(Fields { mount_point: true, ..Fields::default() })?;
/// while let Some(mount) = mounts.next_mount()? {
///     println!("{:?} on {:?}", mount.source, mount.mount_point);
/// }
/// # Ok::<(), vc_mountinfo::ReadError>(())
/// ```
#[derive(Debug)]
pub struct Mounts {
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Kernel(Listing),
    Table(MountInfoReader<File>),
}

impl Mounts {
    /// The caller's mounts, each with what `fields` ask for, by the cheaper way: `listmount(2)` and
    /// `statmount(2)` where neither options nor root are asked for, since printing those is what makes a mount
    /// table slow to read; else, and on older kernels, mountinfo.
    ///
    /// # Errors
    /// [`ReadError::Io`] when `/proc` is not mounted.
    pub fn all(fields: Fields) -> Result<Self, ReadError> {
        if fields.fs_options || fields.root {
            return Self::by_table();
        }
        Self::by_kernel(fields).or_else(|_| Self::by_table())
    }

    /// The caller's mounts by `/proc/thread-self/mountinfo`.
    ///
    /// # Errors
    /// [`ReadError::Io`] when `/proc` is not mounted.
    pub fn by_table() -> Result<Self, ReadError> {
        let table = File::open(OWN_TABLE).map_err(ReadError::Io)?;
        Ok(Self { stream: Stream::Table(MountInfoReader::new(table)) })
    }

    /// The caller's mounts by `listmount(2)` and `statmount(2)`.
    ///
    /// # Errors
    /// [`ReadError::Io`] on a kernel without these (before Linux 6.13), or when they are refused.
    pub fn by_kernel(fields: Fields) -> Result<Self, ReadError> {
        Ok(Self { stream: Stream::Kernel(Listing::start(fields, None).map_err(ReadError::Io)?) })
    }

    /// The mounts as another process sees them, by its mountinfo.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the process is gone or may not be looked at.
    pub fn of_process(view: &ProcessView) -> Result<Self, ReadError> {
        Ok(Self { stream: Stream::Table(view.mountinfo().map_err(ReadError::Io)?) })
    }

    /// The next mount; `None` at the end. Mounts that come or go meanwhile may be seen or not.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] for a line of a table that makes no sense; the call after it goes on.
    /// [`ReadError::Io`] when the kernel fails.
    pub fn next_mount(&mut self) -> Result<Option<Mount<'_>>, ReadError> {
        match &mut self.stream {
            Stream::Kernel(listing) => listing.next_mount().map_err(ReadError::Io),
            Stream::Table(table) => Ok(table.next_entry()?.map(Mount::from)),
        }
    }
}

/// Ids in batches, and a question for each.
#[derive(Debug)]
struct Listing {
    fields: Fields,
    namespace_id: Option<u64>,
    ids: Box<[u64]>,
    /// What of `ids` was listed but not yet asked about.
    left: std::ops::Range<usize>,
    buffer: Buffer,
}

impl Listing {
    const BATCH: usize = 512;

    fn start(fields: Fields, namespace_id: Option<u64>) -> io::Result<Self> {
        let ids = vec![0; Self::BATCH].into_boxed_slice();
        let mut listing = Self { fields, namespace_id, ids, left: 0..0, buffer: Buffer::default() };
        listing.list(0)?;
        // Asks about one now, so that a kernel that cannot tell the source is known at once.
        if let Some(&first) = listing.ids[listing.left.clone()].first() {
            listing.buffer.ask(first, fields.mask(), namespace_id)?;
            if listing.buffer.answer().lacks_source() {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(listing)
    }

    fn list(&mut self, after: u64) -> io::Result<()> {
        let filled = listmount(after, self.namespace_id, &mut self.ids)?;
        self.left = 0..filled;
        Ok(())
    }

    fn next_mount(&mut self) -> io::Result<Option<Mount<'_>>> {
        loop {
            let Some(id) = self.left.next().map(|index| self.ids[index]) else {
                let last = self.ids[self.left.end.saturating_sub(1)];
                if self.left.end < Self::BATCH {
                    return Ok(None);
                }
                self.list(last)?;
                continue;
            };
            match self.buffer.ask(id, self.fields.mask(), self.namespace_id) {
                Ok(()) => return Ok(Some(Mount::from_answer(&self.buffer.answer(), self.fields))),
                // Unmounted since it was listed.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
}
