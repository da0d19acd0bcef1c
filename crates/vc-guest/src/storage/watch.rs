//! Directories whose changes containers can watch.
//!
//! A share of the host tells nobody in the guest of a change. So a small directory is copied to memory,
//! and copied again when it has changed: whoever watches the copy with inotify(7) is told. It can only be
//! polled, for the same reason.
//!
//! A change is copied once two looks in a row have found the same: the first may have met it half done, and the
//! guest remembers sizes and times of a share for a second, which is less than there is between two looks. Links
//! come last, as in the source: whoever is told of a new `..data` of a config map finds all that it leads to.

use super::place::Place;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the source is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often the first copy is tried.
const START_ATTEMPTS: usize = 3;

/// What is larger is not copied: files, directories and links.
const MAX_ENTRIES: usize = 16;

/// What is larger is not copied, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("it has more than {MAX_ENTRIES} entries or {MAX_SIZE} bytes")]
    TooLarge,
    #[error("it changed while it was copied")]
    Changed,
    #[error("cannot copy {0:?}")]
    Entry(PathBuf, #[source] std::io::Error),
}

/// A copy that follows its source.
#[derive(Debug)]
pub(super) struct Watch {
    copy: Arc<Mutex<Option<Copy>>>,
    task: Option<tokio::task::AbortHandle>,
}

impl Watch {
    /// Copies `source`, a file or a directory, to `target`, which must not be there.
    pub(super) fn start(source: &Path, target: &Path) -> Result<Self, CopyError> {
        let mut copy = Copy::new(source, target);
        copy.start()?;
        let copy = Arc::new(Mutex::new(Some(copy)));
        let task = tokio::spawn(follow(Arc::clone(&copy)));
        Ok(Self { copy, task: Some(task.abort_handle()) })
    }

    /// Stops to follow; when this returns nothing is copied any more.
    pub(super) fn stop(self) {
        if let Some(task) = self.task {
            task.abort();
        }
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn follow(copy: Arc<Mutex<Option<Copy>>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let copy = Arc::clone(&copy);
        let updated = tokio::task::spawn_blocking(move || {
            let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            copy.as_mut().map(|copy| (copy.look(), copy.source.clone()))
        });
        match updated.await {
            Ok(Some((Ok(()), _))) => {}
            Ok(Some((Err(CopyError::TooLarge), source))) => {
                tracing::warn!(?source, "grew too large to be watched; its copy stays as it is");
                return;
            }
            // A file may go while it is copied; what it has become is seen the next time.
            Ok(Some((Err(error), source))) => {
                tracing::info!(?source, error = crate::log::chain(&error), "not copied yet");
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// What tells whether an entry has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    mode: u32,
    owner: (u32, u32),
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(entry: &Metadata) -> Self {
        // A directory's size and time change with its entries, which have stamps of their own.
        let counts = !entry.is_dir();
        Self {
            mode: entry.mode(),
            owner: (entry.uid(), entry.gid()),
            inode: entry.ino(),
            size: if counts { entry.size() } else { 0 },
            modified: if counts { (entry.mtime(), entry.mtime_nsec()) } else { (0, 0) },
        }
    }

    fn is_link(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }
}

#[derive(Debug)]
struct Copy {
    source: PathBuf,
    target: PathBuf,
    /// What the copy has.
    known: Entries,
    /// What the last look found, if that is not copied yet.
    seen: Option<Entries>,
}

/// By path below the source; parents come before what is in them.
type Entries = BTreeMap<PathBuf, Stamp>;

impl Copy {
    fn new(source: &Path, target: &Path) -> Self {
        Self { source: source.into(), target: target.into(), known: Entries::new(), seen: None }
    }

    /// Copies everything at once; tried again when it changes meanwhile.
    fn start(&mut self) -> Result<(), CopyError> {
        for _ in 1..START_ATTEMPTS {
            match self.update(scan(&self.source)?) {
                Err(CopyError::Changed) => {}
                result => return result,
            }
        }
        self.update(scan(&self.source)?)
    }

    /// Copies what has changed, if the look before found the same.
    fn look(&mut self) -> Result<(), CopyError> {
        let found = scan(&self.source)?;
        if found == self.known {
            self.seen = None;
        } else if self.seen.as_ref() == Some(&found) {
            self.update(found)?;
        } else {
            self.seen = Some(found);
        }
        Ok(())
    }

    /// Copies what differs from `found`, and removes what is not in there.
    fn update(&mut self, found: Entries) -> Result<(), CopyError> {
        let changed = |(path, stamp): &(&PathBuf, &Stamp)| self.known.get(*path) != Some(stamp);
        let (links, others): (Vec<_>, Vec<_>) =
            found.iter().filter(changed).partition(|(_, stamp)| stamp.is_link());
        for (path, stamp) in others {
            let (from, to) = self.make_room(path, stamp)?;
            to.copy(&look(&self.source, path)?, &from).map_err(|error| CopyError::Entry(from, error))?;
        }
        let mut new_links = Vec::new();
        for (path, stamp) in links {
            let (from, to) = self.make_room(path, stamp)?;
            let leads_to =
                std::fs::read_link(&from).map_err(|error| CopyError::Entry(from.clone(), error))?;
            new_links.push((from, leads_to, stamp.owner, to));
        }
        // All that the links lead to is as it was when they were.
        if scan(&self.source)? != found {
            return Err(CopyError::Changed);
        }
        for (from, leads_to, owner, to) in new_links {
            to.put_link(&leads_to, owner).map_err(|error| CopyError::Entry(from, error))?;
        }
        for path in self.known.keys().rev().filter(|path| !found.contains_key(*path)) {
            match Place::of(&self.target, path).and_then(|gone| gone.remove()) {
                // Gone with its directory, which may have become a file.
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Err(CopyError::Entry(join(&self.target, path), error));
                }
                _ => {}
            }
        }
        (self.known, self.seen) = (found, None);
        Ok(())
    }

    /// An entry in the source and in the copy. What is of another kind there goes first.
    fn make_room(&self, path: &Path, stamp: &Stamp) -> Result<(PathBuf, Place), CopyError> {
        let from = join(&self.source, path);
        let room = Place::of(&self.target, path).and_then(|to| {
            let is_other =
                self.known.get(path).is_some_and(|before| (before.mode ^ stamp.mode) & libc::S_IFMT != 0);
            if is_other { to.remove().map(|()| to) } else { Ok(to) }
        });
        room.map(|to| (from.clone(), to)).map_err(|error| CopyError::Entry(from, error))
    }
}

/// As `join`, but an empty path gives no trailing slash, which would not do for a file.
fn join(directory: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { directory.to_owned() } else { directory.join(below) }
}

/// Everything at and below `source`; links are not followed.
fn scan(source: &Path) -> Result<Entries, CopyError> {
    let mut found = Entries::new();
    let mut size = 0;
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let entry = look(source, &path)?;
        if entry.is_dir() {
            let full = join(source, &path);
            let failed = |error| CopyError::Entry(full.clone(), error);
            for child in std::fs::read_dir(&full).map_err(failed)?.take(MAX_ENTRIES + 1) {
                pending.push(path.join(child.map_err(failed)?.file_name()));
            }
        } else {
            size += entry.len();
        }
        found.insert(path, Stamp::of(&entry));
        // The root does not count.
        if found.len() + pending.len() > MAX_ENTRIES + 1 || size > MAX_SIZE {
            return Err(CopyError::TooLarge);
        }
    }
    Ok(found)
}

/// The entry itself; but the source as a whole may be named by a link.
fn look(source: &Path, path: &Path) -> Result<Metadata, CopyError> {
    let full = join(source, path);
    let entry = if path.as_os_str().is_empty() { full.metadata() } else { full.symlink_metadata() };
    entry.map_err(|error| CopyError::Entry(full, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, read_link, read_to_string, rename, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn copied(source: &Path, target: &Path) -> Copy {
        let mut copy = Copy::new(source, target);
        copy.start().unwrap();
        copy
    }

    /// What is copied when nothing changes any more.
    fn settled(copy: &mut Copy) {
        copy.look().unwrap();
        copy.look().unwrap();
    }

    /// As the kubelet writes a config map.
    fn config_map(root: &Path) -> (PathBuf, PathBuf) {
        let (source, target) = (root.join("source"), root.join("target"));
        create_dir(&source).unwrap();
        create_dir(source.join("..1")).unwrap();
        write(source.join("..1/key"), "old").unwrap();
        symlink("..1", source.join("..data")).unwrap();
        symlink("..data/key", source.join("key")).unwrap();
        (source, target)
    }

    #[test]
    fn a_new_value_is_complete_before_any_link_leads_to_it() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = config_map(root.path());
        let mut copy = copied(&source, &target);
        let old = |target: &Path| {
            assert_eq!(read_link(target.join("..data")).unwrap(), Path::new("..1"));
            assert_eq!(read_to_string(target.join("key")).unwrap(), "old");
        };
        create_dir(source.join("..2")).unwrap();
        write(source.join("..2/key"), "").unwrap();
        // Met half done, and the link is there before the next look.
        copy.look().unwrap();
        write(source.join("..2/key"), "new").unwrap();
        std::fs::remove_file(source.join("..data")).unwrap();
        symlink("..2", source.join("..data")).unwrap();
        copy.look().unwrap();
        old(&target);
        // What was looked at twice changes once more before it is copied.
        let seen = scan(&source).unwrap();
        std::fs::remove_file(source.join("..data")).unwrap();
        symlink("..3", source.join("..data")).unwrap();
        assert!(matches!(copy.update(seen), Err(CopyError::Changed)));
        old(&target);
        create_dir(source.join("..3")).unwrap();
        write(source.join("..3/key"), "newer").unwrap();
        settled(&mut copy);
        assert_eq!(read_to_string(target.join("key")).unwrap(), "newer");
        let names = std::fs::read_dir(&target).unwrap().count();
        assert_eq!(names, 5, "..1, ..2, ..3, ..data, key, and nothing of the copying");
    }

    /// As the kubelet replaces one.
    #[test]
    fn a_copy_follows_its_source() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = config_map(root.path());
        let mut copy = copied(&source, &target);
        assert_eq!(read_to_string(target.join("key")).unwrap(), "old");

        create_dir(source.join("..2")).unwrap();
        write(source.join("..2/key"), "new").unwrap();
        std::fs::set_permissions(source.join("..2/key"), Permissions::from_mode(0o640)).unwrap();
        symlink("..2", source.join("..tmp")).unwrap();
        rename(source.join("..tmp"), source.join("..data")).unwrap();
        std::fs::remove_dir_all(source.join("..1")).unwrap();
        settled(&mut copy);
        assert_eq!(read_to_string(target.join("key")).unwrap(), "new");
        assert_eq!(read_link(target.join("..data")).unwrap(), Path::new("..2"));
        assert_eq!(target.join("..2/key").metadata().unwrap().mode() & 0o7777, 0o640);
        assert!(!target.join("..1").exists());

        // A file becomes a directory.
        std::fs::remove_dir_all(source.join("..2")).unwrap();
        write(source.join("..2"), "file").unwrap();
        settled(&mut copy);
        assert_eq!(read_to_string(target.join("..2")).unwrap(), "file");
    }

    #[test]
    fn no_link_of_the_containers_leads_a_copy_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (source, target, outside) =
            (root.path().join("source"), root.path().join("target"), root.path().join("outside"));
        for directory in [&source, &source.join("dir"), &outside] {
            create_dir(directory).unwrap();
        }
        for file in ["file", "dir/below", "dir/goes"] {
            write(source.join(file), "of the host").unwrap();
        }
        let mut copy = copied(&source, &target);
        for file in ["file", "below", "goes"] {
            write(outside.join(file), "of the guest").unwrap();
        }
        let changes = || {
            write(source.join("file"), "new").unwrap();
            write(source.join("dir/below"), "new").unwrap();
            std::fs::remove_file(source.join("dir/goes")).unwrap();
        };
        std::fs::remove_file(target.join("file")).unwrap();
        symlink(outside.join("file"), target.join("file")).unwrap();
        std::fs::remove_dir_all(target.join("dir")).unwrap();
        symlink(&outside, target.join("dir")).unwrap();
        changes();
        copy.look().unwrap();
        copy.look().unwrap_err();
        let file = Place::of(&target, Path::new("file")).unwrap();
        file.copy(&source.metadata().unwrap(), &source).unwrap_err();
        file.copy(&source.join("file").metadata().unwrap(), &source.join("file")).unwrap_err();
        assert_eq!(Place::of(&target, Path::new("dir/goes")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        for file in ["file", "below", "goes"] {
            assert_eq!(read_to_string(outside.join(file)).unwrap(), "of the guest", "{file}");
        }
    }

    #[test]
    fn a_single_file_keeps_its_inode_for_those_who_have_it_bound() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = (root.path().join("source"), root.path().join("target"));
        write(&source, "1").unwrap();
        let mut copy = copied(&source, &target);
        let inode = target.metadata().unwrap().ino();
        write(&source, "22").unwrap();
        settled(&mut copy);
        assert_eq!(read_to_string(&target).unwrap(), "22");
        assert_eq!(target.metadata().unwrap().ino(), inode);
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_is_copied() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = (root.path().join("source"), root.path().join("target"));
        create_dir(&source).unwrap();
        let mut copy = Copy::new(&source, &target);
        std::fs::File::create(source.join("large")).unwrap().set_len(MAX_SIZE + 1).unwrap();
        assert!(matches!(copy.start(), Err(CopyError::TooLarge)));
        write(source.join("large"), "").unwrap();
        for n in 1..MAX_ENTRIES {
            write(source.join(n.to_string()), "").unwrap();
        }
        assert!(scan(&source).is_ok());
        write(source.join("one-more"), "").unwrap();
        assert!(matches!(copy.start(), Err(CopyError::TooLarge)));
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn a_stopped_watch_copies_nothing_more() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = (root.path().join("source"), root.path().join("target"));
        write(&source, "1").unwrap();
        let watch = Watch::start(&source, &target).unwrap();
        let copy = Arc::clone(&watch.copy);
        watch.stop();
        assert!(copy.lock().unwrap().is_none());
        assert_eq!(read_to_string(&target).unwrap(), "1");
    }
}
