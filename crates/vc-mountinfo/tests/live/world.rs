//! A mount namespace and a directory for one test, gone with it however it ends.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vc_mountinfo::Way;

pub(crate) const WAYS: [Way; 3] = [Way::Statmount, Way::MountId, Way::ParentWalk];

/// A directory on the disk, and within it `m`, a tmpfs of this namespace to mount in.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

/// Runs `test` in a thread with a mount namespace of its own, so all it mounts goes away with it.
///
/// Without root it says so and runs nothing.
pub(crate) fn in_private_world(test: impl FnOnce(&World) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root, to mount");
    }
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    // Made and removed out here: the thread may give up the rights to remove it.
    let world = World { directory: tempfile::tempdir().unwrap() };
    fs::create_dir(world.path("m")).unwrap();
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        world.tmpfs("m", "world");
        test(&world);
    };
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap().join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Says why a test did not run, past the test harness, which would swallow it.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test");
    let message = format!("skipped: {name} {reason}\n");
    std::io::stderr().write_all(message.as_bytes()).unwrap();
}

impl World {
    /// A path below the directory on the disk.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// Makes a directory and those above it.
    pub(crate) fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts a tmpfs at a directory made for it.
    pub(crate) fn tmpfs(&self, name: impl AsRef<Path>, source: &str) -> PathBuf {
        let path = self.dir(name);
        mount(Some(source), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        path
    }

    /// Binds `from` to a directory made for it.
    pub(crate) fn bind(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> PathBuf {
        let (from, to) = (self.path(from), self.dir(to));
        mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        to
    }
}
