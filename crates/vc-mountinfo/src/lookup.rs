//! One mount by path.
//!
//! Text is never compared where the kernel can be asked: `statx(2)` says which mount a path is on, so
//! over-mounts, moved mounts, symlinks and binds are right by construction.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::mount::{Fields, Mount};
use crate::sys::statmount::Buffer;
use crate::sys::statx;

mod place;
mod table;

use place::Place;
use table::Key;

/// How a mount is found. Each falls back on the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// `statx(2)` gives the unique mount id, `statmount(2)` the mount. Linux 6.13; some 3 µs, whatever the
    /// size of the table.
    Statmount,
    /// `statx(2)` gives the mount id, one pass over mountinfo the mount, up to its line. Linux 5.8.
    MountId,
    /// The whole of mountinfo, and a walk from the root mount by parent ids. Any kernel, and the only way
    /// when the path lies behind a directory the caller must not enter; then symlinks on it cannot be resolved.
    ParentWalk,
}

/// What to do when the last component of a path is a symlink. Those before it are always followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Look at the symlink itself, which is never a mount point.
    #[default]
    NoFollow,
    /// Look at what it points to.
    Follow,
}

/// Why a path could not be resolved to its mount.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The path does not exist or cannot be reached.
    #[error("cannot look at {path:?}")]
    Stat {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path exists, but nothing is mounted there.
    #[error("nothing is mounted at {path:?}; it is part of another mount")]
    NotMountPoint {
        /// The path asked for.
        path: PathBuf,
    },
    /// The mount was unmounted, or is not reachable from the caller's root.
    #[error(
        "the mount at {path:?} is not in the mount table ({malformed} malformed lines skipped); it was unmounted meanwhile, or belongs to another mount namespace"
    )]
    NotListed {
        /// The path asked for.
        path: PathBuf,
        /// How many lines of the table made no sense.
        malformed: usize,
    },
    /// `statmount` failed in a way that no other way would mend.
    #[error("statmount failed for the mount at {path:?}")]
    Statmount {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The way that was forced does not exist on this kernel.
    #[error("this kernel cannot look up {path:?} by {way:?}; do not force a way")]
    Unsupported {
        /// The path asked for.
        path: PathBuf,
        /// The way that was forced.
        way: Way,
    },
    /// The mount table could not be read.
    #[error("cannot look up {path:?} in the mount table")]
    Table {
        /// The path asked for.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Looks up mounts by path; keep one for many look-ups, it reuses its buffer.
///
/// ```no_run
/// use vc_mountinfo::Lookup;
///
/// let mut lookup = Lookup::new();
/// println!("{:?} is mounted at /mnt", lookup.at("/mnt")?.source);
/// # Ok::<(), vc_mountinfo::LookupError>(())
/// ```
#[derive(Debug, Default)]
pub struct Lookup {
    forced: Option<Way>,
    symlinks: Symlinks,
    fields: Fields,
    taken: Option<Way>,
    /// The kernel has no `statmount`, or not one that tells the source.
    statmount_missing: bool,
    buffer: Buffer,
}

impl Lookup {
    /// Looks up in the caller's own view, by the best way, without following a last symlink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes this way only.
    #[must_use]
    pub fn forced(mut self, way: Way) -> Self {
        self.forced = Some(way);
        self
    }

    /// Sets what happens when the last component is a symlink.
    #[must_use]
    pub fn symlinks(mut self, symlinks: Symlinks) -> Self {
        self.symlinks = symlinks;
        self
    }

    /// Sets what else to ask of each mount.
    #[must_use]
    pub fn fields(mut self, fields: Fields) -> Self {
        self.fields = fields;
        self
    }

    /// The way the last look-up took; `None` before the first.
    pub fn way_taken(&self) -> Option<Way> {
        self.taken
    }

    /// The visible mount whose mount point is `path`.
    ///
    /// # Errors
    /// [`LookupError`]; [`LookupError::NotMountPoint`] when `path` is not a mount point itself.
    pub fn at(&mut self, path: impl AsRef<Path>) -> Result<Mount<'_>, LookupError> {
        self.find(&Place::Path(None, path.as_ref()))
    }

    /// Like [`at`](Self::at), with a relative path taken from the open directory `dir`.
    ///
    /// Cheaper than `at` for many mount points below one deep directory.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn at_dir(&mut self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<Mount<'_>, LookupError> {
        self.find(&Place::Path(Some(dir.as_fd()), path.as_ref()))
    }

    /// The mount of which the open directory or file `root` is the root, such as a [`Pin`](crate::Pin).
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn of(&mut self, root: impl AsFd) -> Result<Mount<'_>, LookupError> {
        self.find(&Place::Fd(root.as_fd()))
    }

    /// The mounts at all of `paths`, in their order, with at most one pass over the mount table for each way.
    ///
    /// # Errors
    /// Each path has its own, as of [`at`](Self::at).
    pub fn all<P: AsRef<Path>>(&mut self, paths: &[P]) -> Vec<Result<Mount<'static>, LookupError>> {
        self.find_all(paths.iter().map(|path| Place::Path(None, path.as_ref())).collect())
    }

    /// The mounts of which the open directories or files `roots` are the roots, as [`all`](Self::all).
    ///
    /// # Errors
    /// Each root has its own, as of [`at`](Self::at).
    pub fn all_of<F: AsFd>(&mut self, roots: &[F]) -> Vec<Result<Mount<'static>, LookupError>> {
        self.find_all(roots.iter().map(|root| Place::Fd(root.as_fd())).collect())
    }

    fn find_all(&mut self, places: Vec<Place<'_>>) -> Vec<Result<Mount<'static>, LookupError>> {
        let (mut left, mut keys) = (Vec::new(), Vec::new());
        let asked: Vec<_> = places
            .into_iter()
            .map(|place| match self.ask_kernel(&place) {
                Ok(Asked::Mount(mount)) => Some(Ok(mount.into_owned())),
                Ok(Asked::Key(key)) => {
                    left.push(place);
                    keys.push(key);
                    None
                }
                Err(e) => Some(Err(e)),
            })
            .collect();
        let in_table = if keys.is_empty() { Vec::new() } else { table::find(&left, &keys) };
        let mut in_table = in_table.into_iter();
        let all = asked.into_iter().map(|result| result.or_else(|| in_table.next()));
        all.map(|result| result.expect("each place not settled by the kernel was searched for")).collect()
    }

    fn find(&mut self, place: &Place<'_>) -> Result<Mount<'_>, LookupError> {
        match self.ask_kernel(place)? {
            Asked::Mount(mount) => Ok(mount),
            Asked::Key(key) => table::find(std::slice::from_ref(place), &[key]).remove(0),
        }
    }

    /// Takes the first way, or prepares one of the other two.
    fn ask_kernel(&mut self, place: &Place<'_>) -> Result<Asked<'_>, LookupError> {
        if matches!(self.forced, Some(Way::MountId | Way::ParentWalk)) || self.statmount_missing {
            return self.key(place).map(Asked::Key);
        }
        self.taken = Some(Way::Statmount);
        match self.statmount(place) {
            Ok(()) => Ok(Asked::Mount(Mount::from_answer(&self.buffer.answer(), self.fields))),
            Err(Refusal::Final(error)) => Err(error),
            Err(Refusal::TryNext(error)) if self.forced.is_some() => Err(error),
            Err(Refusal::TryNext(_)) => self.key(place).map(Asked::Key),
        }
    }

    /// Fills the buffer with the mount at `place`.
    fn statmount(&mut self, place: &Place<'_>) -> Result<(), Refusal> {
        let stat = place.statx(self.symlinks, statx::MNT_ID_UNIQUE).map_err(|source| {
            let try_next = is_refusal(&source);
            Refusal::new(try_next, LookupError::Stat { path: place.name(), source })
        })?;
        let unsupported = || LookupError::Unsupported { path: place.name(), way: Way::Statmount };
        let unique_id = stat.mount_id(statx::MNT_ID_UNIQUE).ok_or_else(|| Refusal::TryNext(unsupported()))?;
        if stat.is_mount_root() != Some(true) {
            return Err(Refusal::Final(LookupError::NotMountPoint { path: place.name() }));
        }
        if let Err(source) = self.buffer.ask(unique_id, self.fields.mask(), None) {
            if source.raw_os_error() == Some(libc::ENOENT) {
                return Err(Refusal::Final(LookupError::NotListed { path: place.name(), malformed: 0 }));
            }
            self.statmount_missing = source.raw_os_error() == Some(libc::ENOSYS);
            let try_next = is_refusal(&source);
            return Err(Refusal::new(try_next, LookupError::Statmount { path: place.name(), source }));
        }
        if self.buffer.answer().lacks_source() {
            self.statmount_missing = true;
            return Err(Refusal::TryNext(unsupported()));
        }
        Ok(())
    }

    /// Prepares one of the two ways through the mount table.
    fn key(&mut self, place: &Place<'_>) -> Result<Key, LookupError> {
        if self.forced != Some(Way::ParentWalk) {
            self.taken = Some(Way::MountId);
            match Key::by_id(place, self.symlinks) {
                Ok(key) => return Ok(key),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::TryNext(error)) if self.forced.is_some() => return Err(error),
                Err(Refusal::TryNext(_)) => {}
            }
        }
        self.taken = Some(Way::ParentWalk);
        Key::by_path(place, self.symlinks)
    }
}

/// What asking the kernel came to: the mount, or what to search the mount table for.
enum Asked<'a> {
    Mount(Mount<'a>),
    Key(Key),
}

/// Why one way failed, and whether the next may do better.
enum Refusal {
    TryNext(LookupError),
    Final(LookupError),
}

impl Refusal {
    fn new(try_next: bool, error: LookupError) -> Self {
        if try_next { Self::TryNext(error) } else { Self::Final(error) }
    }
}

/// Whether the kernel, or a filter before it, refuses the call itself rather than this path.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EACCES))
}
