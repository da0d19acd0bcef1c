//! A mount namespace with many mounts of many kinds, gone with the process.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const LAYERS: usize = 30;
/// Lower directories of each overlay; makes lines of about 2.7 KB.
const LOWER: usize = 30;

/// The mounts, and what is known of them.
pub struct World {
    directory: tempfile::TempDir,
    /// The path of each layer and its true source.
    layers: Vec<(PathBuf, PathBuf)>,
}

impl World {
    /// Enters a private mount namespace and makes `size` mounts, the layers spread evenly among them.
    pub fn of_size(size: usize) -> Result<Self> {
        let mut world = Self::empty()?;
        for n in 0..size {
            while world.layers.len() < (n + 1) * LAYERS / size {
                world.layer()?;
            }
            world.any(n).with_context(|| format!("cannot make mount {n}"))?;
        }
        Ok(world)
    }

    fn empty() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace; run this as root")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let directory = tempfile::Builder::new().prefix("vcb").tempdir()?;
        let world = Self { directory, layers: Vec::new() };
        for name in ["m", "l", "images", "tree"] {
            fs::create_dir(world.path(name))?;
        }
        world.tmpfs(Path::new("m"), "world")?;
        for n in 0..LOWER {
            fs::create_dir(world.path(lower(n)))?;
        }
        fs::write(world.path("tree/file"), "content")?;
        Ok(world)
    }

    /// The layers and their true sources.
    pub fn layers(&self) -> &[(PathBuf, PathBuf)] {
        &self.layers
    }

    /// How many mounts there are in all.
    pub fn mounts(&self) -> Result<usize> {
        Ok(fs::read("/proc/self/mountinfo")?.iter().filter(|b| **b == b'\n').count())
    }

    /// How long the table is, in bytes.
    pub fn table_length(&self) -> Result<usize> {
        Ok(fs::read("/proc/self/mountinfo")?.len())
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// 15 % overlays, 25 % tmpfs, 5 % tmpfs with odd names, the rest binds.
    fn any(&self, n: usize) -> Result<()> {
        let at = PathBuf::from(format!("m/{n}"));
        match n % 20 {
            0..3 => self.overlay(&at),
            3..8 => self.tmpfs(&at, &format!("source{n}")),
            8 => self.tmpfs(Path::new(&format!("m/sp ace\ttab\\{n}")), "sp ace#"),
            _ => {
                fs::create_dir(self.path(&at))?;
                let none = None::<&str>;
                Ok(mount(Some(&self.path("l")), &self.path(&at), none, MsFlags::MS_BIND, none)?)
            }
        }
    }

    fn tmpfs(&self, at: &Path, source: &str) -> Result<()> {
        let at = self.path(at);
        fs::create_dir_all(&at)?;
        Ok(mount(Some(source), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
    }

    fn overlay(&self, at: &Path) -> Result<()> {
        fs::create_dir(self.path(at))?;
        let names: Vec<_> = (0..LOWER).map(|n| self.path(lower(n)).display().to_string()).collect();
        let options = format!("lowerdir={}", names.join(":"));
        Ok(mount(Some("overlay"), &self.path(at), Some("overlay"), MsFlags::empty(), Some(&*options))?)
    }

    fn layer(&mut self) -> Result<()> {
        let n = self.layers.len();
        let (at, image) = (self.path(format!("m/layer{n}")), self.path(format!("images/{n}.erofs")));
        fs::create_dir(&at)?;
        let made = Command::new("mkfs.erofs").arg(&image).arg(self.path("tree")).output();
        let made = made.context("cannot run mkfs.erofs; install the package erofs-utils")?;
        anyhow::ensure!(made.status.success(), "mkfs.erofs failed: {}", made.stderr.escape_ascii());
        mount(Some(&image), &at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>)
            .context("cannot mount an EROFS image without a loop device; that needs Linux 6.12")?;
        self.layers.push((at, image));
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mounts = self.path("m");
        if let Err(error) = nix::mount::umount2(&mounts, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {mounts:?}: {error}");
        }
    }
}

fn lower(n: usize) -> PathBuf {
    Path::new("l").join(std::ffi::OsStr::from_bytes("x".repeat(70).as_bytes())).with_extension(n.to_string())
}
