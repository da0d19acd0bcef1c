//! One mount by path.
//!
//! Text is never compared where the kernel can be asked: `statx(2)` says which mount a path is on, so
//! over-mounts, moved mounts, symlinks and binds are right by construction.

use std::os::fd::AsFd;
use std::path::Path;

use crate::mount::{Fields, Mount};
use crate::process::ProcessView;

mod error;
mod find;
mod place;
mod table;

pub use error::LookupError;
use find::{Finder, Query};
use place::Place;

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
    settings: Settings,
    finder: Finder,
}

/// What does not change from one look-up to the next.
#[derive(Debug, Default)]
struct Settings {
    forced: Option<Way>,
    symlinks: Symlinks,
    fields: Fields,
    process: Option<ProcessView>,
}

impl Lookup {
    /// Looks up in the caller's own view, by the best way, without following a last symlink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks up as that process would: in its mount namespace, from its root.
    #[must_use]
    pub fn in_process(mut self, view: ProcessView) -> Self {
        self.settings.process = Some(view);
        self
    }

    /// Takes this way only.
    #[must_use]
    pub fn forced(mut self, way: Way) -> Self {
        self.settings.forced = Some(way);
        self
    }

    /// Sets what happens when the last component is a symlink.
    #[must_use]
    pub fn symlinks(mut self, symlinks: Symlinks) -> Self {
        self.settings.symlinks = symlinks;
        self
    }

    /// Sets what else to ask of each mount.
    #[must_use]
    pub fn fields(mut self, fields: Fields) -> Self {
        self.settings.fields = fields;
        self
    }

    /// The way the last look-up took; `None` before the first.
    pub fn way_taken(&self) -> Option<Way> {
        self.finder.taken
    }

    /// The visible mount whose mount point is `path`.
    ///
    /// # Errors
    /// [`LookupError`]; [`LookupError::NotMountPoint`] when `path` is not a mount point itself.
    pub fn at(&mut self, path: impl AsRef<Path>) -> Result<Mount<'_>, LookupError> {
        let place = self.settings.place(path.as_ref());
        self.finder.find(&self.settings, &Query { place, covering: false })
    }

    /// The visible mount that `path` is on, whether or not it is mounted right there.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn covering(&mut self, path: impl AsRef<Path>) -> Result<Mount<'_>, LookupError> {
        let place = self.settings.place(path.as_ref());
        self.finder.find(&self.settings, &Query { place, covering: true })
    }

    /// Like [`at`](Self::at), with a relative path taken from the open directory `dir`.
    ///
    /// Cheaper than `at` for many mount points below one deep directory. In the view of another process
    /// `dir` still is a directory of the caller.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn at_dir(&mut self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<Mount<'_>, LookupError> {
        let place = Place::Path(Some(dir.as_fd()), path.as_ref());
        self.finder.find(&self.settings, &Query { place, covering: false })
    }

    /// The mount of which the open directory or file `root` is the root, such as a [`Pin`](crate::Pin).
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub fn of(&mut self, root: impl AsFd) -> Result<Mount<'_>, LookupError> {
        self.finder.find(&self.settings, &Query { place: Place::Fd(root.as_fd()), covering: false })
    }

    /// The mounts at all of `paths`, in their order, with at most one pass over the mount table.
    ///
    /// On the way by mount ids, [`Way::MountId`], each path is held open until all are found.
    ///
    /// # Errors
    /// Each path has its own, as of [`at`](Self::at).
    pub fn all<P: AsRef<Path>>(&mut self, paths: &[P]) -> Vec<Result<Mount<'static>, LookupError>> {
        let places = paths.iter().map(|path| self.settings.place(path.as_ref()));
        let queries = places.map(|place| Query { place, covering: false }).collect();
        self.finder.find_all(&self.settings, queries)
    }

    /// The mounts at all of `paths`, relative ones taken from the open directory `dir`, as [`all`](Self::all).
    ///
    /// # Errors
    /// Each path has its own, as of [`at_dir`](Self::at_dir).
    pub fn all_at_dir<P: AsRef<Path>>(
        &mut self,
        dir: impl AsFd,
        paths: &[P],
    ) -> Vec<Result<Mount<'static>, LookupError>> {
        let places = paths.iter().map(|path| Place::Path(Some(dir.as_fd()), path.as_ref()));
        let queries = places.map(|place| Query { place, covering: false }).collect();
        self.finder.find_all(&self.settings, queries)
    }

    /// The mounts of which the open directories or files `roots` are the roots, as [`all`](Self::all).
    ///
    /// # Errors
    /// Each root has its own, as of [`at`](Self::at).
    pub fn all_of<F: AsFd>(&mut self, roots: &[F]) -> Vec<Result<Mount<'static>, LookupError>> {
        let places = roots.iter().map(|root| Place::Fd(root.as_fd()));
        let queries = places.map(|place| Query { place, covering: false }).collect();
        self.finder.find_all(&self.settings, queries)
    }
}

impl Settings {
    fn place<'a>(&'a self, path: &'a Path) -> Place<'a> {
        match &self.process {
            Some(view) => Place::Process(view, path),
            None => Place::Path(None, path),
        }
    }
}
