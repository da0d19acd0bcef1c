//! Where the owner's process is for those who look at it by its pid: in the container's root file system.
//!
//! Engines take the pid of a container for that of a process in it. To copy files they enter its mount namespace
//! (`podman cp`), and what is `/` there is written to. So the first thread, by which the kernel answers for the whole
//! process (proc(5), `/proc/pid/ns`), goes into a mount namespace with nothing but the container's root and
//! its binds. All work is done by other threads, which stay on the host.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatvfs, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::path::Arg;
use rustix::process::{chdir, pivot_root};

use crate::sys;

/// What the container sees of the host.
#[derive(Debug)]
pub(crate) struct Place {
    rootfs: PathBuf,
    read_only: bool,
    binds: Vec<Bind>,
}

#[derive(Debug)]
struct Bind {
    source: PathBuf,
    destination: PathBuf,
    read_only: bool,
}

impl Place {
    pub(crate) fn of(rootfs: &Path, bundle: &Path, spec: &Spec) -> Self {
        let mounts = spec.mounts().iter().flatten();
        let binds = mounts.filter_map(|mount| {
            let has = |name: &str| mount.options().iter().flatten().any(|option| option == name);
            let is_bind = mount.typ().as_deref() == Some("bind") || has("bind") || has("rbind");
            let source = mount.source().as_ref().filter(|_| is_bind)?;
            let destination = mount.destination().clone();
            Some(Bind { source: bundle.join(source), destination, read_only: has("ro") })
        });
        let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
        Self { rootfs: rootfs.to_owned(), read_only, binds: binds.collect() }
    }

    /// Goes there with the calling thread, and with no other.
    fn enter(&self) -> io::Result<()> {
        match sys::unshare_mounts() {
            // Who may not do this cannot enter the mount namespace of another process either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::debug!("this user's engines cannot enter mount namespaces, so none is made");
                return Ok(());
            }
            other => other?,
        }
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        mount_bind(&self.rootfs, &self.rootfs)?;
        chdir(&self.rootfs)?;
        for bind in &self.binds {
            match bind.make() {
                Ok(()) => {}
                // The guest has made what it needs; whatever is not there is not seen either.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    tracing::debug!(destination = %bind.destination.display(), "not shown to engines");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.read_only {
            make_read_only(".", open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?.as_fd())?;
        }
        // The old root comes to lie on the new one, and goes (pivot_root(2), "pivot_root(".", ".")").
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    }
}

/// Makes the mount at `path`, which `mount` is in, read-only and leaves its other flags as they are: a user namespace may
/// not take `nosuid` and its like from what it has of the host (mount_namespaces(7), "Restrictions on mount namespaces").
fn make_read_only(path: impl Arg, mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let has = fstatvfs(mount)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag);
    mount_remount(path, kept.fold(MountFlags::BIND | MountFlags::RDONLY, MountFlags::union), "")
}

impl Bind {
    /// Shows the source at the destination below the current directory, whose links lead nowhere else: they are the
    /// container's.
    fn make(&self) -> Result<(), Errno> {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &self.source, clone | OpenTreeFlags::AT_RECURSIVE)?;
        let below = self.destination.strip_prefix("/").unwrap_or(&self.destination);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let place = openat2(CWD, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree.as_fd(), "", place.as_fd(), "", empty)?;
        if self.read_only {
            make_read_only(format!("/proc/thread-self/fd/{}", tree.as_raw_fd()), tree.as_fd())?;
        }
        Ok(())
    }
}

/// By which another thread has the first one go to a place.
#[derive(Clone, Debug)]
pub(crate) struct Mover(SyncSender<(Place, SyncSender<io::Result<()>>)>);

/// What the first thread hears.
#[derive(Debug)]
pub(crate) struct Movements(Receiver<(Place, SyncSender<io::Result<()>>)>);

/// The two ends.
pub(crate) fn movements() -> (Mover, Movements) {
    let (mover, movements) = sync_channel(1);
    (Mover(mover), Movements(movements))
}

impl Mover {
    /// Returns once the first thread is there. It does nothing that could hang but for what the mounts are on.
    pub(crate) fn go(&self, place: Place) -> io::Result<()> {
        let gone = |_| io::Error::other("the first thread has ended");
        let (reply, moved) = sync_channel(1);
        self.0.send((place, reply)).map_err(|_| gone(()))?;
        moved.recv().map_err(|_| gone(()))?
    }
}

impl Movements {
    /// Goes where it is told, until there is nobody to tell.
    pub(crate) fn follow(self) {
        for (place, reply) in self.0 {
            // Whoever does not wait any more has ended.
            let _ = reply.send(place.enter());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A root file system with `/data`, and a volume, both below the first, which goes with the value.
    fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, volume) = (dir.path().join("rootfs"), dir.path().join("volume"));
        fs::create_dir_all(rootfs.join("data")).unwrap();
        fs::create_dir(&volume).unwrap();
        (dir, rootfs, volume)
    }

    #[test]
    fn a_read_only_bind_keeps_what_else_its_mount_has() {
        if !vc_tests::root() {
            return;
        }
        let (_dir, rootfs, volume) = directories();
        let seen = std::thread::spawn(move || {
            sys::unshare_mounts().unwrap();
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
            rustix::mount::mount("none", &volume, "tmpfs", flags, None).unwrap();
            let bind = Bind { source: volume, destination: "/data".into(), read_only: true };
            Place { rootfs, read_only: true, binds: vec![bind] }.enter().unwrap();
            rustix::fs::statvfs("/data").unwrap().f_flag
        });
        let has = seen.join().unwrap();
        let all = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
        assert!(has.contains(all | StatVfsMountFlags::NOATIME), "{has:?}");
    }

    /// What a thread in the place sees at `/`, and whether the process is still where it was.
    #[test]
    fn a_thread_in_the_place_sees_the_root_and_its_binds_and_nothing_else() {
        if !vc_tests::root() {
            return;
        }
        let (dir, rootfs, volume) = directories();
        fs::create_dir(rootfs.join("ro")).unwrap();
        fs::write(volume.join("file"), "of the volume").unwrap();
        // A link that would lead to the host's /etc, if it were followed there.
        std::os::unix::fs::symlink("/etc", rootfs.join("link")).unwrap();
        let bind = |destination: &str, read_only| Bind {
            source: volume.clone(),
            destination: destination.into(),
            read_only,
        };
        let binds = vec![
            bind("/data", false),
            bind("/ro", true),
            bind("/link/passwd", false),
            bind("/absent", false),
        ];
        let place = Place { rootfs: rootfs.clone(), read_only: true, binds };
        let seen = std::thread::spawn(move || {
            place.enter().unwrap();
            let mut names: Vec<_> =
                fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            fs::write("/data/new", "").unwrap();
            let refused = [
                fs::write("/ro/x", "").is_err(),
                fs::write("/x", "").is_err(),
                fs::read_dir("/proc").is_err(),
            ];
            (names, fs::read_to_string("/data/file").unwrap(), refused)
        });
        let (names, file, refused) = seen.join().unwrap();
        assert_eq!(names, ["data", "link", "ro"]);
        assert_eq!(file, "of the volume");
        assert_eq!(refused, [true; 3], "a read-only bind, a read-only root, a directory of the host");
        assert!(fs::exists(dir.path().join("volume/new")).unwrap());
        assert!(fs::read_dir("/proc").is_ok(), "the other threads are where they were");
        assert!(
            fs::read_dir(rootfs.join("data")).unwrap().next().is_none(),
            "nor is anything mounted for them"
        );
    }
}
