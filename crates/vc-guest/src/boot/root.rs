//! A root that containers can leave.
//!
//! pivot_root(2) refuses to leave the kernel's initial root, where the initramfs is unpacked; so the
//! agent first moves to a root of its own, and every container's root is entered by pivot_root. Only
//! the directory of the modules is bound over; nothing is copied.

use super::init::BootError;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};
use std::fs::create_dir_all;

const NEW_ROOT: &str = "/newroot";

/// Makes an empty memory file system the root, with `/dev` and `/lib` of the old one.
pub(super) fn move_to_memory() -> Result<(), BootError> {
    let none: Option<&str> = None;
    let failed = |errno: Errno| BootError::Mount("the new root", errno);
    let path = |name: &str| format!("{NEW_ROOT}/{name}");
    let made = create_dir_all(NEW_ROOT);
    made.map_err(|error| BootError::Step("make the new root", error))?;
    mount(Some("tmpfs"), NEW_ROOT, Some("tmpfs"), MsFlags::MS_NODEV, Some("mode=0755")).map_err(failed)?;
    for directory in ["dev", "etc", "lib", "proc", "run", "sys", "tmp"] {
        create_dir_all(path(directory)).map_err(|error| BootError::Step("fill the new root", error))?;
    }
    mount(Some("/dev"), path("dev").as_str(), none, MsFlags::MS_MOVE, none).map_err(failed)?;
    match mount(Some("/lib"), path("lib").as_str(), none, MsFlags::MS_BIND, none) {
        // An image whose kernel needs no modules has none.
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    chdir(NEW_ROOT).map_err(failed)?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(failed)?;
    chroot(".").and_then(|()| chdir("/")).map_err(failed)
}
