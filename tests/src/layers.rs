//! EROFS layers for tests, made with mkfs.erofs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory of layers, removed when dropped; anybody may read it.
#[derive(Debug)]
pub struct Layers {
    dir: TempDir,
}

impl Layers {
    /// An empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vc-layers-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { dir }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A layer with busybox and its applets.
    ///
    /// # Panics
    /// When Debian's busybox-static or erofs-utils is missing.
    pub fn busybox(&self) -> PathBuf {
        self.layer("busybox", |root| {
            let bin = root.join("bin");
            for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
                fs::create_dir(root.join(dir)).expect("a fresh directory");
            }
            fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
            let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
            let applets = String::from_utf8(list).expect("names");
            // The list has busybox itself, and a link to itself would replace the program.
            for applet in applets.lines().filter(|applet| *applet != "busybox") {
                symlink("busybox", bin.join(applet)).expect("a fresh name");
            }
            fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a fresh file");
            fs::write(root.join("etc/not-executable"), "data\n").expect("a fresh file");
        })
    }

    /// A layer of what `fill` puts into a directory.
    ///
    /// # Panics
    /// When mkfs.erofs is missing or fails.
    pub fn layer(&self, name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
        let tree = self.dir.path().join(format!("{name}.tree"));
        fs::create_dir(&tree).expect("a fresh name");
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("it is ours");
        fill(&tree);
        let image = self.dir.path().join(format!("{name}.erofs"));
        let made =
            Command::new("mkfs.erofs").arg("--quiet").arg("--all-root").arg(&image).arg(&tree).output();
        let made = made.expect("erofs-utils is installed");
        assert!(made.status.success(), "mkfs.erofs: {}", String::from_utf8_lossy(&made.stderr));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).expect("it is ours");
        image
    }
}
