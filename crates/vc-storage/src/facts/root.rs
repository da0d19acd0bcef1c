//! What is known about a root: its layers, its disk, or its directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_device::{DeviceSource, PathKind};
use vc_mountinfo::{Fields, Lookup, LookupError, OverlayOptions, Symlinks};
use vc_types::{HostPath, InvalidPath};

use super::disk::verity;
use super::gather::{FactsError, Host, kind_of};
use super::mounts::resolve;
use super::open::open_read_only;
use super::{DirectoryFacts, LayerFacts, RootFacts};
use crate::layer::{Layer, mounted_layers};
use crate::rootfs::{LayerSource, Layers, Rootfs, Upper};

/// Why it is not known what a directory is as a root.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The mount at the directory is not known.
    #[error("cannot tell what is mounted at the root file system {path:?}")]
    Mount {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LookupError>,
    },
    /// Its path cannot be used.
    #[error("cannot use the path of the root file system")]
    Path(#[from] InvalidPath),
}

/// What a directory is as a root: layers when it is an overlay of mounted EROFS images or one of them, else
/// a directory to share. A disk below it is never guessed.
///
/// # Errors
/// [`RootfsError`] when it cannot be looked at.
pub fn rootfs_at(directory: impl AsRef<Path>) -> Result<Rootfs, RootfsError> {
    let path = directory.as_ref();
    let failed = |source| RootfsError::Mount { path: path.into(), source: Box::new(source) };
    let fields = Fields { fs_options: true, ..Fields::default() };
    let mut lookup = Lookup::new().symlinks(Symlinks::Follow).fields(fields);
    let at = match lookup.at(path) {
        Ok(mount) => Some((mount.fs_type.into_owned(), mount.fs_options.map(std::borrow::Cow::into_owned))),
        Err(LookupError::NotMountPoint { .. }) => None,
        Err(error) => return Err(failed(error)),
    };
    let layers = match &at {
        Some((fs_type, _)) if fs_type == "erofs" => Some(vec![path.to_path_buf()]),
        Some((fs_type, Some(options))) if fs_type == "overlay" => {
            // Directories that were given relative to somewhere are not found, and so are no layers.
            let overlay = OverlayOptions::from_mount_table(options).unwrap_or_default();
            let is_image = |directory: &PathBuf| {
                directory.is_absolute() && lookup.at(directory).is_ok_and(|mount| *mount.fs_type == *"erofs")
            };
            let only_names = overlay.lower.iter().all(|lower| !lower.data_only);
            let directories: Vec<PathBuf> = overlay.lower.into_iter().map(|lower| lower.path).collect();
            let are_images = only_names && !directories.is_empty() && directories.iter().all(is_image);
            are_images.then_some(directories)
        }
        _ => None,
    };
    let Some(layers) = layers else {
        let source = HostPath::new(std::path::absolute(path).unwrap_or_else(|_| path.into()))?;
        return Ok(Rootfs::Directory { source, read_only: false });
    };
    let layer = |path: &PathBuf| HostPath::new(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let layers =
        layers.iter().map(|path| layer(path).map(LayerSource::MountedAt)).collect::<Result<_, _>>()?;
    Ok(Rootfs::Layers(Layers { layers, upper: Upper::Memory { unused: None }, options: Vec::new() }))
}

impl Host<'_> {
    pub(super) fn root(&mut self, rootfs: &Rootfs) -> Result<RootFacts, FactsError> {
        Ok(match rootfs {
            Rootfs::Layers(layers) => {
                let upper = match &layers.upper {
                    Upper::Image(image) => Some(self.disk(&image.image)?),
                    Upper::Memory { .. } => None,
                };
                RootFacts::Layers { layers: self.layers(&layers.layers)?, upper }
            }
            Rootfs::Block(block) => RootFacts::Disk(self.disk(&block.source)?),
            Rootfs::Directory { source, .. } => RootFacts::Directory(self.directory(source)?),
            Rootfs::Nydus(nydus) => RootFacts::Directory(self.directory(&nydus.snapshot_dir)?),
            Rootfs::Volumes { volumes } => {
                let disk = |source: &String| match HostPath::new(source) {
                    Ok(path) => self.disk(&path),
                    // The source of an image to pull is no path.
                    Err(_) => Ok(super::DiskFacts::default()),
                };
                let disks = volumes.iter().map(|volume| disk(&volume.source)).collect::<Result<_, _>>()?;
                RootFacts::Disks(disks)
            }
        })
    }

    fn layers(&mut self, sources: &[LayerSource]) -> Result<Vec<LayerFacts>, FactsError> {
        let directories = sources.iter().filter_map(|layer| match layer {
            LayerSource::MountedAt(directory) => Some(directory.as_path().to_path_buf()),
            LayerSource::Image { .. } => None,
        });
        let mut mounted = mounted_layers(directories)?.into_iter();
        let mut facts = Vec::new();
        for source in sources {
            let (layer, devices, root) = match source {
                LayerSource::MountedAt(_) => {
                    (mounted.next().expect("one image for each directory"), [].as_slice(), None)
                }
                LayerSource::Image { image, devices, verity } => {
                    (Layer::open_with_devices(image, devices.len())?, devices.as_slice(), verity.as_ref())
                }
            };
            let verity = root.map(|root| verity(root, layer.image())).transpose()?;
            let image = self.keep(layer.name(), layer.image())?;
            let blobs = devices.iter().map(|device| self.blob(device)).collect::<Result<_, _>>()?;
            facts.push(LayerFacts { image, blobs, fs_type: "erofs".to_owned(), verity });
        }
        Ok(facts)
    }

    /// Opens what has the data of a layer. It has no superblock of its own.
    fn blob(&mut self, path: &HostPath) -> Result<DeviceSource, FactsError> {
        let file = open_read_only(path)
            .map_err(|source| FactsError::Look { path: path.as_path().into(), source })?;
        match self.keep(path, &Arc::new(file))? {
            blob @ DeviceSource::File { .. } => Ok(blob),
            _ => Err(FactsError::Blob(path.clone())),
        }
    }

    /// Keeps an open image or blob, and tells what it is.
    fn keep(&mut self, path: &HostPath, file: &Arc<File>) -> Result<DeviceSource, FactsError> {
        let stat =
            file.metadata().map_err(|source| FactsError::Look { path: path.as_path().into(), source })?;
        let kind = PathKind::try_from(&stat)
            .map_err(|source| FactsError::Number { path: path.as_path().into(), source })?;
        let source = match kind {
            PathKind::Regular(file) => DeviceSource::File { file, path: path.clone() },
            PathKind::Block(number) => DeviceSource::Block { number, path: path.clone() },
            _ => return Err(FactsError::Blob(path.clone())),
        };
        self.images.keep(&source, Arc::clone(file));
        Ok(source)
    }

    fn directory(&mut self, source: &HostPath) -> Result<DirectoryFacts, FactsError> {
        let Some((kind, _)) = kind_of(source)? else { return Ok(DirectoryFacts::default()) };
        let mount = self
            .lookup
            .covering(source)
            .map_err(|error| FactsError::Mount { path: source.as_path().into(), source: Box::new(error) })?;
        let device = HostPath::new(Path::new(&mount.source)).ok();
        let mounted_from = device.filter(|device| device.as_path().starts_with("/dev"));
        Ok(DirectoryFacts { kind: Some(kind), resolved: Some(resolve(source)?), mounted_from })
    }
}
