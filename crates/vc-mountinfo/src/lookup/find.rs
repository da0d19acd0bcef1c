//! The choice of the way, and the first of them.

use super::error::{LookupError, Refusal};
use super::place::Place;
use super::table::{self, Key};
use super::{Settings, Way};
use crate::mount::Mount;
use crate::sys::statmount::Buffer;
use crate::sys::statx;

/// What is wanted.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pub(super) place: Place<'a>,
    /// Whether any mount will do that the place is on, not only one mounted right there.
    pub(super) covering: bool,
}

/// What is kept from one look-up to the next.
#[derive(Debug, Default)]
pub(super) struct Finder {
    pub(super) taken: Option<Way>,
    /// The kernel has no `statmount`, or not one that tells the source.
    statmount_missing: bool,
    buffer: Buffer,
}

impl Finder {
    pub(super) fn find(&mut self, settings: &Settings, query: &Query<'_>) -> Result<Mount<'_>, LookupError> {
        match self.ask_kernel(settings, query)? {
            Asked::Mount(mount) => Ok(mount),
            Asked::Key(key) => table::find(settings, std::slice::from_ref(query), &[key]).remove(0),
        }
    }

    pub(super) fn find_all(
        &mut self,
        settings: &Settings,
        queries: Vec<Query<'_>>,
    ) -> Vec<Result<Mount<'static>, LookupError>> {
        let (mut left, mut keys) = (Vec::new(), Vec::new());
        let asked: Vec<_> = queries
            .into_iter()
            .map(|query| match self.ask_kernel(settings, &query) {
                Ok(Asked::Mount(mount)) => Some(Ok(mount.into_owned())),
                Ok(Asked::Key(key)) => {
                    left.push(query);
                    keys.push(key);
                    None
                }
                Err(e) => Some(Err(e)),
            })
            .collect();
        let in_table = if keys.is_empty() { Vec::new() } else { table::find(settings, &left, &keys) };
        let mut in_table = in_table.into_iter();
        let all = asked.into_iter().map(|result| result.or_else(|| in_table.next()));
        all.map(|result| result.expect("each place not settled by the kernel was searched for")).collect()
    }

    /// Takes the first way, or prepares one of the other two.
    fn ask_kernel(&mut self, settings: &Settings, query: &Query<'_>) -> Result<Asked<'_>, LookupError> {
        let first = matches!(settings.forced, None | Some(Way::Statmount)) && !self.statmount_missing;
        if !first {
            return self.key(settings, query).map(Asked::Key);
        }
        self.taken = Some(Way::Statmount);
        match self.statmount(settings, query) {
            Ok(()) => Ok(Asked::Mount(Mount::from_answer(&self.buffer.answer(), settings.fields))),
            Err(Refusal::Final(error)) => Err(error),
            Err(Refusal::TryNext(error)) if settings.forced.is_some() => Err(error),
            Err(Refusal::TryNext(_)) => self.key(settings, query).map(Asked::Key),
        }
    }

    /// Fills the buffer with the mount at the place.
    fn statmount(&mut self, settings: &Settings, query: &Query<'_>) -> Result<(), Refusal> {
        let path = || query.place.name();
        let unsupported = || Refusal::TryNext(LookupError::Unsupported { path: path(), way: Way::Statmount });
        let stat = query
            .place
            .statx(settings.symlinks, statx::MNT_ID_UNIQUE)
            .map_err(|e| Refusal::of_call(e, |source| LookupError::Stat { path: path(), source }))?;
        let unique_id = stat.mount_id(statx::MNT_ID_UNIQUE).ok_or_else(unsupported)?;
        if !query.covering && stat.is_mount_root() != Some(true) {
            return Err(Refusal::Final(LookupError::NotMountPoint { path: path() }));
        }
        let namespace = match &settings.process {
            Some(process) => Some(process.namespace_id().ok_or_else(unsupported)?),
            None => None,
        };
        self.buffer.ask(unique_id, settings.fields.mask(), namespace).map_err(|e| {
            match e.raw_os_error() {
                Some(libc::ENOENT) => Refusal::Final(LookupError::NotListed { path: path(), malformed: 0 }),
                errno => {
                    self.statmount_missing = errno == Some(libc::ENOSYS) && settings.forced.is_none();
                    Refusal::of_call(e, |source| LookupError::Statmount { path: path(), source })
                }
            }
        })?;
        if self.buffer.answer().lacks_source() {
            self.statmount_missing = settings.forced.is_none();
            return Err(unsupported());
        }
        Ok(())
    }

    /// Prepares one of the two ways through the mount table.
    fn key(&mut self, settings: &Settings, query: &Query<'_>) -> Result<Key, LookupError> {
        if settings.forced != Some(Way::ParentWalk) {
            self.taken = Some(Way::MountId);
            match Key::by_id(query, settings.symlinks) {
                Ok(key) => return Ok(key),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::TryNext(error)) if settings.forced.is_some() => return Err(error),
                Err(Refusal::TryNext(_)) => {}
            }
        }
        self.taken = Some(Way::ParentWalk);
        Key::by_path(query, settings.symlinks)
    }
}

/// What asking the kernel came to: the mount, or what to search the mount table for.
enum Asked<'a> {
    Mount(Mount<'a>),
    Key(Key),
}
