//! Layers mounted as containerd's EROFS snapshotter does, undone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts that are taken away when this is dropped, the newest first.
#[derive(Debug, Default)]
pub struct Mounted(Vec<PathBuf>);

impl Mounted {
    /// Mounts an EROFS image through a loop device.
    ///
    /// # Panics
    /// When mount(8) fails.
    pub fn by_loop(&mut self, image: &Path, at: &Path) {
        fs::create_dir_all(at).expect("a place for a mount");
        let made = Command::new("mount").args(["-t", "erofs", "-o", "ro,loop"]).arg(image).arg(at).output();
        let made = made.expect("mount(8) runs");
        assert!(made.status.success(), "mount: {}", String::from_utf8_lossy(&made.stderr));
        self.0.push(at.to_path_buf());
    }

    /// Mounts the file system of a block device.
    ///
    /// # Panics
    /// When mount(8) fails.
    pub fn disk(&mut self, device: &Path, fs_type: &str, at: &Path) {
        fs::create_dir_all(at).expect("a place for a mount");
        let made = Command::new("mount").args(["-t", fs_type]).arg(device).arg(at).output();
        let made = made.expect("mount(8) runs");
        assert!(made.status.success(), "mount: {}", String::from_utf8_lossy(&made.stderr));
        self.0.push(at.to_path_buf());
    }

    /// Mounts an EROFS image as a file, without a loop device; `false` where the kernel cannot (before
    /// Linux 6.12).
    ///
    /// # Panics
    /// When there is no place for the mount.
    pub fn as_file(&mut self, image: &Path, at: &Path) -> bool {
        fs::create_dir_all(at).expect("a place for a mount");
        // Not by mount(8), which always puts a loop device in between.
        let mounted = mount(Some(image), at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>).is_ok();
        if mounted {
            self.0.push(at.to_path_buf());
        }
        mounted
    }

    /// Mounts an empty file system in memory; `options` as for mount(8), such as `size=64k`.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn tmpfs(&mut self, at: &Path, options: &str) {
        self.memory("tmpfs", at, options);
    }

    /// Mounts an empty file system of huge pages; `options` as for mount(8), such as `pagesize=2M`. It needs no page.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn hugetlbfs(&mut self, at: &Path, options: &str) {
        self.memory("hugetlbfs", at, options);
    }

    fn memory(&mut self, kind: &str, at: &Path, options: &str) {
        fs::create_dir_all(at).expect("a place for a mount");
        let mounted = mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options));
        mounted.unwrap_or_else(|error| panic!("a {kind} can be mounted: {error}"));
        self.0.push(at.to_path_buf());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for at in self.0.drain(..).rev() {
            if let Err(error) = umount2(&at, MntFlags::MNT_DETACH) {
                crate::skip(&format!("unmounting {}: {error}", at.display()));
            }
        }
    }
}
