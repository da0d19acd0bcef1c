//! What each driver does once its devices are there.

use super::error::StorageError;
use super::layers::{Layer, Layers};
use super::made::Made;
use super::overlay::{self, ShortNames};
use super::ownership;
use super::request::{Driver, StorageSpec};
use super::verity::VerityDevice;
use super::watch::{CopyError, Watch};
use crate::modules::ModuleLoader;
use crate::mount::Mount;
use crate::mount_options::MountOptions;
use nix::errno::Errno;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the layers of a container's overlay are mounted, below a directory of its name.
const LAYERS: &str = "/run/kata-containers";

/// Where copies are that follow their sources.
const COPIES: &str = "/run/vc/copies";

/// What mounting one storage needs besides its description.
#[derive(Debug)]
pub(super) struct Mounting<'a> {
    pub(super) modules: &'a ModuleLoader,
    /// Whose storage it is: a container's id, or `sandbox`.
    pub(super) owner: &'a str,
    /// The nodes of the storage's devices, in their order.
    pub(super) devices: &'a [PathBuf],
}

impl Mounting<'_> {
    /// Mounts the storage; each step is told to `made`, also when a later one fails.
    pub(super) fn mount(&self, spec: &StorageSpec, made: &mut Made) -> Result<(), StorageError> {
        for directory in &spec.directories {
            made.tree(Path::new(directory.as_str()))?;
        }
        let target = Path::new(spec.mount_point.as_str());
        match &spec.driver {
            Driver::Block(layer) => self.layer(layer, &mut self.devices.iter(), target, made)?,
            Driver::Layers(layers) => self.layers(layers, target, made)?,
            Driver::VirtioFs(tag) => self.plain(tag, "virtiofs", spec, made)?,
            Driver::Overlay { writable } => self.overlay(spec, *writable, made)?,
            Driver::Bind(source) => self.bind(Path::new(source.as_str()), spec, made)?,
            Driver::Memory => self.plain("tmpfs", "tmpfs", spec, made)?,
            Driver::HugePages(pages) => {
                made.huge_pages(*pages)?;
                self.plain("nodev", "hugetlbfs", spec, made)?;
            }
            Driver::Local => local(spec, made)?,
            Driver::Watchable(source) => self.watchable(Path::new(source.as_str()), spec, made)?,
        }
        give(spec, target)
    }

    fn plain(
        &self,
        source: &str,
        fs_type: &str,
        spec: &StorageSpec,
        made: &mut Made,
    ) -> Result<(), StorageError> {
        let options = MountOptions::parse(spec.options.iter().map(String::as_str));
        let target = Path::new(spec.mount_point.as_str());
        made.mount(&Mount { source, target, fs_type, options }, self.modules)
    }

    fn bind(&self, source: &Path, spec: &StorageSpec, made: &mut Made) -> Result<(), StorageError> {
        let options = ["bind"].into_iter().chain(spec.options.iter().map(String::as_str));
        let mount = Mount {
            source: &source.to_string_lossy(),
            target: Path::new(spec.mount_point.as_str()),
            fs_type: "bind",
            options: MountOptions::parse(options),
        };
        made.mount(&mount, self.modules)
    }

    /// A device with a file system, or, as `bind`, the device itself.
    fn layer(
        &self,
        layer: &Layer,
        devices: &mut std::slice::Iter<'_, PathBuf>,
        target: &Path,
        made: &mut Made,
    ) -> Result<(), StorageError> {
        let mut device = devices.next().cloned().unwrap_or_default();
        let blobs: Vec<String> = devices
            .by_ref()
            .take(layer.blobs.len())
            .map(|blob| format!("device={}", blob.display()))
            .collect();
        if let Some(options) = &layer.verity {
            self.modules.load_if_known(&["dm_verity", "sha256_generic"])?;
            let failed = |error| StorageError::Verity(target.into(), error);
            let verified = VerityDevice::create(options, &device).map_err(failed)?;
            device = verified.node();
            made.verity(verified);
        }
        let bind = if layer.fs_type == "bind" { "bind" } else { "" };
        let options = [bind].into_iter().chain(layer.options.iter().chain(&blobs).map(String::as_str));
        let mount = Mount {
            source: &device.to_string_lossy(),
            target,
            fs_type: &layer.fs_type,
            options: MountOptions::parse(options),
        };
        made.mount(&mount, self.modules)
    }

    /// One writable layer, those below it, and the overlay of them all.
    fn layers(&self, layers: &Layers, target: &Path, made: &mut Made) -> Result<(), StorageError> {
        let base = Path::new(LAYERS).join(self.owner).join("multi-layer");
        let upper = base.join("upper");
        let mut devices = self.devices.iter();
        self.layer(&layers.upper, &mut devices, &upper, made)?;
        for new in &layers.directories {
            make_directory(&upper.join(new.path.as_str().trim_start_matches('/')), new.mode)?;
        }
        let mut lower = Vec::new();
        for (index, layer) in layers.lower.iter().enumerate() {
            let at = base.join(format!("lower-{index}"));
            let read_only = ["ro".to_owned()].into_iter().chain(layer.options.iter().cloned());
            let layer = Layer { options: read_only.collect(), ..layer.clone() };
            self.layer(&layer, &mut devices, &at, made)?;
            lower.push(at.display().to_string());
        }
        let (data, work) = (upper.join("upper"), upper.join("work"));
        make_directory(&data, 0o755)?;
        make_directory(&work, 0o700)?;
        let options = [
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", data.display()),
            format!("workdir={}", work.display()),
        ];
        self.mount_overlay(&options, target, made)
    }

    fn overlay(&self, spec: &StorageSpec, writable: bool, made: &mut Made) -> Result<(), StorageError> {
        let target = Path::new(spec.mount_point.as_str());
        let mut options = spec.options.clone();
        if writable {
            for (option, name) in [("upperdir", "upper"), ("workdir", "work")] {
                let directory = target.with_file_name(name);
                made.tree(&directory)?;
                options.push(format!("{option}={}", directory.display()));
            }
        }
        self.mount_overlay(&options, target, made)
    }

    fn mount_overlay(&self, options: &[String], target: &Path, made: &mut Made) -> Result<(), StorageError> {
        let names;
        let options = if overlay::fits(options) {
            options
        } else {
            names = ShortNames::new(options)?;
            &names.options
        };
        let options = MountOptions::parse(options.iter().map(String::as_str));
        made.mount(&Mount { source: "overlay", target, fs_type: "overlay", options }, self.modules)
    }

    /// What is too large to be copied is bound: it is there, but nobody is told of changes.
    fn watchable(&self, source: &Path, spec: &StorageSpec, made: &mut Made) -> Result<(), StorageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let directory = Path::new(COPIES).join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        made.tree(&directory)?;
        let copy = directory.join("copy");
        match Watch::start(source, &copy) {
            Ok(watch) => made.watch(watch),
            Err(CopyError::TooLarge) => {
                tracing::info!(?source, "too large to be watched; bound instead");
                return self.bind(source, spec, made);
            }
            Err(CopyError::Changed) => {
                let (path, source) = (source.into(), std::io::ErrorKind::ResourceBusy.into());
                return Err(StorageError::Contents { step: "copy", path, source });
            }
            Err(CopyError::Entry(path, source)) => {
                return Err(StorageError::Contents { step: "copy", path, source });
            }
        }
        self.bind(&copy, spec, made)
    }
}

/// A directory in the guest, with the permissions of its option `mode=`.
fn local(spec: &StorageSpec, made: &mut Made) -> Result<(), StorageError> {
    let target = Path::new(spec.mount_point.as_str());
    made.tree(target)?;
    let mode = spec.options.iter().find_map(|option| option.strip_prefix("mode="));
    let Some(mode) = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok()) else { return Ok(()) };
    set_mode(target, mode)
}

fn make_directory(directory: &Path, mode: u32) -> Result<(), StorageError> {
    if directory.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(directory).map_err(|error| StorageError::Make(directory.into(), error))?;
    set_mode(directory, mode)
}

fn set_mode(directory: &Path, mode: u32) -> Result<(), StorageError> {
    let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
    std::fs::set_permissions(directory, permissions).map_err(|source| StorageError::Contents {
        step: "set the permissions of",
        path: directory.into(),
        source,
    })
}

/// Gives the mounted storage to the groups that the host names.
fn give(spec: &StorageSpec, target: &Path) -> Result<(), StorageError> {
    let read_only = spec.options.iter().any(|option| option == "ro");
    let all = spec.fs_group.map_or(Ok(()), |group| ownership::give(target, group, read_only));
    let given = all.and_then(|()| spec.root_gid.map_or(Ok(()), |gid| ownership::give_root(target, gid)));
    match given {
        // What nobody can write to nobody has to own.
        Err(Errno::EROFS) if read_only => Ok(()),
        result => result.map_err(|errno| StorageError::Contents {
            step: "give to its group",
            path: target.into(),
            source: errno.into(),
        }),
    }
}
