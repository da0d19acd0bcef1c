//! The directory itself: what is bound into it, and how all of it is taken away again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use vc_types::HostPath;

use crate::error::{ShareError, Step};
use crate::mounts::{
    attach, detach_all, detached, is_directory, is_mount, make_place, open_beneath, open_directory,
    open_place, open_source, remove_place,
};
use crate::sys::{Propagation, set_mount_attributes};
use crate::{Bind, ShareName};

/// What is bound is mounted here.
const MOUNTS: &str = "mounts";

/// The same again, read-only at its top, for a server to serve.
const SHARED: &str = "shared";

/// A directory that host and guest share.
///
/// ```text
/// ROOT/          0700
///      mounts/   what is bound, each by its name; a shared mount of its own
///      shared/   the same: a slave of `mounts`, read-only but for what is mounted in it; for a server to serve
/// ```
///
/// A guest can therefore write where a bind lets it, and can neither make nor remove names beside the binds. What
/// is bound later appears in `shared` also for a server that has a mount namespace of its own. Each mount gets its
/// attributes before anybody sees it, so that nothing that is read-only ever was not.
///
/// Nothing is removed that was not made here: mounts are taken away first, and then only empty places are removed.
#[derive(Debug)]
pub struct SharedDir {
    root: HostPath,
    /// The root of the mount at `mounts`.
    mounts: OwnedFd,
    made: Vec<Made>,
    removed: bool,
}

/// What was made, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Made {
    /// A directory for names of two parts.
    Directory(ShareName),
    /// An empty file or directory.
    Place(ShareName),
    /// A place and a mount on it.
    Bind(Bind),
    /// A place, perhaps with a mount on it, that another process has made.
    Found(ShareName),
}

impl Made {
    fn name(&self) -> &ShareName {
        match self {
            Self::Directory(name) | Self::Place(name) | Self::Found(name) => name,
            Self::Bind(bind) => &bind.name,
        }
    }
}

impl SharedDir {
    /// Makes the directory at `root`, which must not exist; its parent must.
    ///
    /// # Errors
    /// [`ShareError`] when a step fails, as without root (`CAP_SYS_ADMIN`) or before Linux 5.12; nothing is left.
    pub fn create(root: &HostPath) -> Result<Self, ShareError> {
        let step = || Step::Make(root.clone());
        mkdir(root.as_path(), Mode::RWXU).map_err(ShareError::of(step))?;
        match make(root.as_path()) {
            Ok(mounts) => Ok(Self { root: root.clone(), mounts, made: Vec::new(), removed: false }),
            Err(errno) => {
                // Told by the first error; what cannot be removed is no more than empty directories.
                let _ = unmake(root.as_path());
                Err(ShareError::of(step)(errno))
            }
        }
    }

    /// Takes over the directory of a process that has died, with what that one may have made there by `names`.
    /// `None` when there is no directory; one that was never complete is taken away.
    ///
    /// # Errors
    /// [`ShareError`] when it cannot be opened, or not be taken away.
    pub fn adopt(
        root: &HostPath,
        names: impl IntoIterator<Item = ShareName>,
    ) -> Result<Option<Self>, ShareError> {
        let failed = |errno| ShareError::of(|| Step::Adopt(root.clone()))(errno);
        let Some(mounts) = complete(root.as_path()).map_err(failed)? else {
            unmake(root.as_path()).map_err(ShareError::of(|| Step::Remove(root.clone())))?;
            return Ok(None);
        };
        let mut adopted = Self { root: root.clone(), mounts, made: Vec::new(), removed: false };
        for name in names {
            if let (Some(parent), _) = name.parts() {
                let parent: ShareName = parent.parse().expect("a part of a name is a name");
                if adopted.find(&parent).is_none() {
                    adopted.made.push(Made::Directory(parent));
                }
            }
            adopted.made.push(Made::Found(name));
        }
        Ok(Some(adopted))
    }

    /// Leaves everything as it is when this value is dropped, for another process to take over.
    pub fn let_go(&mut self) {
        self.removed = true;
    }

    /// The directory that a server is to serve.
    pub fn served(&self) -> HostPath {
        HostPath::new(self.root.as_path().join(SHARED)).expect("below a checked path")
    }

    /// Shows a file or directory of the host in the directory. What is bound already stays as it is.
    ///
    /// # Errors
    /// [`ShareError`] when a step fails, or something else has the name; nothing is left of the attempt.
    pub fn bind(&mut self, bind: &Bind) -> Result<(), ShareError> {
        match self.find(&bind.name) {
            Some(Made::Bind(known)) if known == bind => return Ok(()),
            Some(_) => return Err(ShareError::Taken(bind.name.clone())),
            None => {}
        }
        let source = || Step::Source(bind.source.clone());
        let mount = match open_source(bind.source.as_path()) {
            Ok(opened) => detached(opened, bind.recursive).map_err(ShareError::of(source))?,
            Err(Errno::LOOP) => return Err(ShareError::SourceLed(bind.source.clone())),
            Err(errno) => return Err(ShareError::of(source)(errno)),
        };
        let attributes = || Step::Attributes(bind.source.clone());
        let propagation = if bind.follow { Propagation::Slave } else { Propagation::Private };
        set_mount_attributes(mount.as_fd(), bind.read_only, propagation)
            .map_err(ShareError::of(attributes))?;
        let is_directory = is_directory(&mount).map_err(ShareError::of(source))?;
        self.place(&bind.name, is_directory)?;
        let attached = self.open(&bind.name).and_then(|place| {
            attach(&mount, place).map_err(ShareError::of(|| Step::Attach(bind.name.clone())))
        });
        if let Err(error) = attached {
            // The first error counts; the place is empty.
            let _ = self.unbind(&bind.name);
            return Err(error);
        }
        if let Some(made) = self.made.iter_mut().find(|made| made.name() == &bind.name) {
            *made = Made::Bind(bind.clone());
        }
        Ok(())
    }

    /// Makes an empty file or directory in the directory, for the guest to mount on. One that is there stays.
    ///
    /// # Errors
    /// [`ShareError`] when a step fails, or something else has the name.
    pub fn place(&mut self, name: &ShareName, is_directory: bool) -> Result<(), ShareError> {
        match self.find(name) {
            Some(Made::Place(_)) => return Ok(()),
            Some(_) => return Err(ShareError::Taken(name.clone())),
            None => {}
        }
        if let (Some(parent), _) = name.parts() {
            let parent: ShareName = parent.parse().expect("a part of a name is a name");
            match self.find(&parent) {
                Some(Made::Directory(_)) => {}
                Some(_) => return Err(ShareError::Taken(parent)),
                None => self.make(&parent, true, Made::Directory(parent.clone()))?,
            }
        }
        self.make(name, is_directory, Made::Place(name.clone()))
    }

    /// Takes a name out of the directory again, for good: the mount, and the place that it was on. A name that is
    /// not there is fine.
    ///
    /// What the guest or its server still uses of the mount, they keep until they let go.
    ///
    /// # Errors
    /// [`ShareError`]; may be called again, and goes on where it failed.
    pub fn unbind(&mut self, name: &ShareName) -> Result<(), ShareError> {
        let Some(made) = self.find(name).cloned() else { return Ok(()) };
        if matches!(made, Made::Bind(_) | Made::Found(_)) {
            match detach_all(&self.mounts, name.as_str()) {
                // Somebody was faster, as an administrator may be.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(refused(name, errno, Step::Detach)),
            }
            self.replace(name, Made::Place(name.clone()));
        }
        match remove_place(&self.mounts, name.as_str()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(name, errno, Step::RemovePlace)),
        }
        self.made.retain(|made| made.name() != name);
        // The directory goes with the last name in it.
        let Some(parent) = name.parts().0 else { return Ok(()) };
        if self.made.iter().any(|made| made.name().parts().0 == Some(parent)) {
            return Ok(());
        }
        self.unbind(&parent.parse().expect("a part of a name is a name"))
    }

    /// The names in the directory, in the order in which they were made.
    pub fn names(&self) -> impl Iterator<Item = &ShareName> {
        self.made.iter().filter(|made| !matches!(made, Made::Directory(_))).map(Made::name)
    }

    /// Takes everything away, the newest first, and the directory itself. Every step is tried; may be repeated.
    ///
    /// # Errors
    /// All that could not be taken away.
    pub fn remove(&mut self) -> Result<(), Vec<ShareError>> {
        if self.removed {
            return Ok(());
        }
        let names: Vec<ShareName> = self.made.iter().rev().map(|made| made.name().clone()).collect();
        let mut errors: Vec<ShareError> = names.iter().filter_map(|name| self.unbind(name).err()).collect();
        if errors.is_empty() {
            let removed = unmake(self.root.as_path());
            errors.extend(removed.err().map(ShareError::of(|| Step::Remove(self.root.clone()))));
        }
        self.removed = errors.is_empty();
        if self.removed { Ok(()) } else { Err(errors) }
    }

    fn find(&self, name: &ShareName) -> Option<&Made> {
        self.made.iter().find(|made| made.name() == name)
    }

    fn replace(&mut self, name: &ShareName, by: Made) {
        self.made.iter_mut().filter(|made| made.name() == name).for_each(|made| *made = by.clone());
    }

    fn make(&mut self, name: &ShareName, is_directory: bool, made: Made) -> Result<(), ShareError> {
        match make_place(&self.mounts, name.as_str(), is_directory) {
            Ok(()) => self.made.push(made),
            Err(Errno::EXIST) => return Err(ShareError::Taken(name.clone())),
            Err(errno) => return Err(refused(name, errno, Step::Place)),
        }
        Ok(())
    }

    /// The place of a name, which nothing is mounted on.
    fn open(&self, name: &ShareName) -> Result<OwnedFd, ShareError> {
        open_place(&self.mounts, name.as_str()).map_err(|errno| refused(name, errno, Step::Attach))
    }
}

impl Drop for SharedDir {
    /// Takes away what is left. Whoever wants to know what fails calls [`SharedDir::remove`] before.
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// A link, and what leads out of the directory, is told from other refusals (openat2(2)).
fn refused(name: &ShareName, errno: Errno, step: impl FnOnce(ShareName) -> Step) -> ShareError {
    match errno {
        Errno::LOOP | Errno::XDEV => ShareError::Led(name.clone()),
        Errno::NOTEMPTY => ShareError::NotEmpty(name.clone()),
        errno => ShareError::System { step: step(name.clone()), source: errno.into() },
    }
}

/// Makes `mounts` and `shared`; gives the root of the mount at `mounts`.
fn make(root: &Path) -> Result<OwnedFd, Errno> {
    let (mounts, shared) = (root.join(MOUNTS), root.join(SHARED));
    mkdir(&mounts, Mode::RWXU | Mode::RGRP | Mode::XGRP)?;
    mkdir(&shared, Mode::RWXU)?;
    let own = detached(open_directory(&mounts)?, false)?;
    // First out of the group of mounts that the host's is in, or what is bound would appear there as well.
    set_mount_attributes(own.as_fd(), false, Propagation::Private)?;
    set_mount_attributes(own.as_fd(), false, Propagation::Shared)?;
    attach(&own, open_directory(&mounts)?)?;
    let served = detached(open_directory(&mounts)?, false)?;
    set_mount_attributes(served.as_fd(), true, Propagation::Slave)?;
    attach(&served, open_directory(&shared)?)?;
    open_directory(&mounts)
}

/// The root of the mount at `mounts`, if [`make`] has come to its end.
fn complete(root: &Path) -> Result<Option<OwnedFd>, Errno> {
    let there = |name| match open_directory(root).and_then(|directory| open_beneath(directory, name)) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
        Ok(found) => Ok(is_mount(&found)?.then_some(found)),
    };
    // The mount that is made last.
    if there(SHARED)?.is_none() { Ok(None) } else { there(MOUNTS) }
}

/// Takes away what [`make`] has made, as far as it is there. What is not empty stays.
fn unmake(root: &Path) -> Result<(), Errno> {
    let directory = match open_directory(root) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    for name in [SHARED, MOUNTS] {
        match detach_all(&directory, name).and_then(|()| remove_place(&directory, name)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::rmdir(root)
}
