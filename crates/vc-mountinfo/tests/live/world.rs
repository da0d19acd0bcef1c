//! A mount namespace and a directory for one test, gone with it however it ends.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vc_mountinfo::{Lookup, LookupError, Way};

use crate::kernel;

/// A directory on the disk, and within it `m`, a tmpfs of this namespace to mount in.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

/// Runs `test` in a thread with a mount namespace of its own, so all it mounts goes away with it.
///
/// Without the rights for that it says so and runs nothing. `VC_TEST_REFUSE=457,458` refuses these system calls
/// (here `statmount` and `listmount`) to all tests, as a kernel does that has none of them.
pub(crate) fn in_private_world(test: impl FnOnce(&World) + Send) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    // Made and removed out here: the thread may give up the rights to remove it.
    let world = World { directory: tempfile::tempdir().unwrap() };
    fs::create_dir(world.path("m")).unwrap();
    let run = || {
        enter_private_namespace();
        world.tmpfs("m", "world");
        if let Ok(calls) = std::env::var("VC_TEST_REFUSE") {
            let calls: Vec<_> = calls.split(',').map(|call| (call.parse().unwrap(), libc::ENOSYS)).collect();
            kernel::refuse(&calls).unwrap();
        }
        test(&world);
    };
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap().join()
    });
    match result.map_err(|panic| panic.downcast::<Skip>()) {
        Ok(()) => {}
        Err(Ok(skip)) => tell(&skip.0),
        Err(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn enter_private_namespace() {
    if !nix::unistd::geteuid().is_root() {
        skip("needs root, to mount");
    }
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(nix::Error::EPERM) => skip("needs CAP_SYS_ADMIN, to mount"),
        Err(e) => panic!("unshare: {e}"),
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// Ends a test that cannot run here.
struct Skip(String);

/// Ends the test and has its reason told.
pub(crate) fn skip(reason: impl Into<String>) -> ! {
    std::panic::resume_unwind(Box::new(Skip(reason.into())))
}

/// Says why a test did not run, past the test harness, which would swallow it.
fn tell(reason: &str) {
    let thread = std::thread::current();
    let message = format!("skipped: {} {reason}\n", thread.name().unwrap_or("test"));
    std::io::stderr().write_all(message.as_bytes()).unwrap();
}

/// The ways this kernel has.
pub(crate) fn ways() -> Vec<Way> {
    let mut ways = vec![Way::MountId, Way::ParentWalk];
    if has_statmount() {
        ways.insert(0, Way::Statmount);
    }
    ways
}

/// Ends the test where the kernel has no `statmount` that tells the source.
pub(crate) fn needs_statmount() {
    if !has_statmount() {
        skip("needs statmount, of Linux 6.13");
    }
}

fn has_statmount() -> bool {
    match Lookup::new().forced(Way::Statmount).at("/proc") {
        Ok(_) => true,
        Err(LookupError::Unsupported { .. }) => false,
        Err(LookupError::Statmount { source, .. }) if source.raw_os_error() == Some(libc::ENOSYS) => false,
        Err(e) => panic!("{e}: {e:?}"),
    }
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
