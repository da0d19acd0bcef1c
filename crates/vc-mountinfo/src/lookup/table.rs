//! The ways through the mount table: one pass on ids, or a walk by parent ids.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::{LookupError, Refusal};
use super::find::Query;
use super::{Settings, Symlinks, Way};
use crate::mount::Mount;
use crate::mountinfo::{Entry, MountInfoReader, ReadError};
use crate::process::OWN_TABLE;
use crate::sys::statx::{self, statx_fd};
use crate::walk::{Node, walk};

/// What to search the table for.
#[derive(Debug)]
pub(super) enum Key {
    /// The mount with this id, which cannot be given to another one while the handle is open: this, or the
    /// caller's.
    Id { id: u32, _pin: Option<OwnedFd> },
    /// The visible mount at this absolute path.
    Path(PathBuf),
}

impl Key {
    pub(super) fn by_id(query: &Query<'_>, symlinks: Symlinks) -> Result<Self, Refusal> {
        let path = || query.place.name();
        let refusal = |e| Refusal::of_call(e, |source| LookupError::Stat { path: path(), source });
        let pin = query.place.pin(symlinks).map_err(refusal)?;
        let stat = match &pin {
            Some(pin) => statx_fd(pin.as_fd(), statx::MNT_ID),
            None => query.place.statx(symlinks, statx::MNT_ID),
        };
        let stat = stat.map_err(refusal)?;
        let id = stat.mount_id(statx::MNT_ID).and_then(|id| u32::try_from(id).ok());
        match (id, stat.is_mount_root()) {
            (Some(id), is_root) if query.covering || is_root == Some(true) => Ok(Self::Id { id, _pin: pin }),
            (Some(_), Some(_)) => Err(Refusal::Final(LookupError::NotMountPoint { path: path() })),
            _ => Err(Refusal::TryNext(LookupError::Unsupported { path: path(), way: Way::MountId })),
        }
    }

    pub(super) fn by_path(query: &Query<'_>, symlinks: Symlinks) -> Result<Self, LookupError> {
        let path = query.place.absolute(symlinks);
        path.map(Self::Path).map_err(|source| LookupError::Stat { path: query.place.name(), source })
    }
}

/// The mounts for `keys`, in their order, by one pass over the table.
pub(super) fn find(
    settings: &Settings,
    queries: &[Query<'_>],
    keys: &[Key],
) -> Vec<Result<Mount<'static>, LookupError>> {
    let mut search = Search::new(keys);
    let table = settings.process.as_ref().map_or_else(|| OWN_TABLE.into(), |process| process.table());
    match File::open(table).and_then(|table| search.read(table)) {
        Ok(()) => queries.iter().enumerate().map(|(index, query)| search.result(index, query)).collect(),
        Err(error) => {
            // One failure, told for each path.
            let again = || error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error);
            let failed = |query: &Query<'_>| LookupError::Table { path: query.place.name(), source: again() };
            queries.iter().map(|query| Err(failed(query))).collect()
        }
    }
}

/// One pass over the table.
struct Search<'k> {
    keys: &'k [Key],
    /// What was found for each key by id.
    by_id: Vec<Option<Mount<'static>>>,
    /// All mounts on the way to any of the keys by path.
    on_the_way: Vec<Mount<'static>>,
    malformed: usize,
}

impl<'k> Search<'k> {
    fn new(keys: &'k [Key]) -> Self {
        Self { keys, by_id: vec![None; keys.len()], on_the_way: Vec::new(), malformed: 0 }
    }

    /// Reads until all is found: to the end when there is a path among the keys.
    fn read(&mut self, table: impl io::Read) -> io::Result<()> {
        let mut table = MountInfoReader::new(table);
        let mut missing = self.keys.len();
        while missing > 0 {
            match table.next_entry() {
                Ok(Some(entry)) => missing -= self.take(&entry),
                Ok(None) => return Ok(()),
                Err(ReadError::Malformed(_)) => self.malformed += 1,
                Err(ReadError::Io(e)) => return Err(e),
            }
        }
        Ok(())
    }

    /// Keeps the entry if it is wanted; the number of keys it settles.
    fn take(&mut self, entry: &Entry<'_>) -> usize {
        let mut settled = 0;
        let mut is_on_the_way = false;
        for (key, found) in self.keys.iter().zip(&mut self.by_id) {
            match key {
                Key::Id { id, .. } if *id == entry.id && found.is_none() => {
                    *found = Some(Mount::from(*entry).into_owned());
                    settled += 1;
                }
                Key::Id { .. } => {}
                Key::Path(path) => is_on_the_way |= path.starts_with(entry.mount_point()),
            }
        }
        if is_on_the_way {
            self.on_the_way.push(Mount::from(*entry).into_owned());
        }
        settled
    }

    fn result(&mut self, index: usize, query: &Query<'_>) -> Result<Mount<'static>, LookupError> {
        let found = match &self.keys[index] {
            Key::Id { .. } => self.by_id[index].take(),
            Key::Path(path) => match walk(&self.on_the_way, path) {
                Some(mount) if query.covering || mount.mount_point() == path => Some(mount.clone()),
                Some(_) => return Err(LookupError::NotMountPoint { path: query.place.name() }),
                None => None,
            },
        };
        found.ok_or_else(|| LookupError::NotListed { path: query.place.name(), malformed: self.malformed })
    }
}

impl Node for Mount<'_> {
    fn id(&self) -> u32 {
        self.id
    }
    fn parent_id(&self) -> u32 {
        self.parent_id
    }
    fn mount_point(&self) -> &Path {
        self.mount_point.as_deref().unwrap_or(Path::new(""))
    }
}
