//! Layers: open, checked image files, however the caller names them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_mountinfo::LowerDir;
use vc_mountinfo::erofs::{self, ErofsImage, ImageError, LayerImage, LayersError, RootfsError};
use vc_types::{HostPath, InvalidPath};

use crate::mount::Mount;
use crate::rootfs::{LayerSource, Layers, MountsError, Rootfs, Upper, VolumeType};

/// One read-only layer of a root file system: an EROFS image, open and checked.
///
/// The open file is what counts. Its name is kept for messages.
#[derive(Clone, Debug)]
pub struct Layer {
    name: HostPath,
    image: Arc<File>,
    size: u64,
}

/// Why there are no layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerSourceError {
    /// A file is no image that can serve as a layer.
    #[error("cannot use a layer")]
    Image(#[from] ImageError),
    /// A layer's path cannot be used.
    #[error("cannot use a layer's path")]
    Path(#[from] InvalidPath),
    /// A path cannot be made absolute.
    #[error("cannot make {path:?} absolute")]
    Absolute {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing is known of a mounted layer.
    #[error("cannot find the image of a mounted layer")]
    Mounted(#[source] Box<LayersError>),
    /// Nothing is known of the mounted root file system.
    #[error("cannot find the layers of the mounted root file system")]
    Rootfs(#[source] Box<RootfsError>),
    /// The mounts describe no root file system.
    #[error("cannot tell what the mounts describe")]
    Mounts(#[from] MountsError),
    /// A mounted layer that only holds data for the others.
    #[error("{0:?} is a data-only layer, which is not supported yet")]
    DataOnly(PathBuf),
    /// The plan is good, but nothing can carry it out yet.
    #[error("cannot carry this out yet: {0}")]
    Missing(Missing),
}

/// What is missing to carry a plan out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// Layers whose data is in other images.
    #[error("{0} has its data in other images, which need a disk made of several files")]
    Devices(HostPath),
    /// Layers that dm-verity checks.
    #[error("{0} is to be checked by dm-verity in the guest, which the agent cannot do")]
    Verity(HostPath),
    /// An upper directory on a disk.
    #[error("what the container writes is to go to {0}, which needs a disk that the guest can write to")]
    WritableImage(HostPath),
    /// Options of the overlay.
    #[error("the overlay is to have the option {0:?}, which is not passed on to the guest")]
    OverlayOption(String),
    /// A block device or image with a file system.
    #[error("{0} is to be the root as a disk; only EROFS layers can be plugged")]
    Block(HostPath),
    /// A directory.
    #[error("{0} is a directory, which needs a file system that host and guest share")]
    SharedDirectory(HostPath),
    /// A RAFS image.
    #[error("{0} is a RAFS image, which needs nydusd")]
    Nydus(HostPath),
    /// Volumes in Kata's description.
    #[error("the root is a virtual volume of type {0:?}")]
    VirtualVolume(VolumeType),
}

impl Layer {
    /// Opens an image file and checks that it can serve as a layer.
    ///
    /// # Errors
    /// [`LayerSourceError`] when it cannot be read, is no EROFS image, is damaged, truncated, or one of
    /// several files of an image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LayerSourceError> {
        let path = path.as_ref();
        let absolute = std::path::absolute(path)
            .map_err(|source| LayerSourceError::Absolute { path: path.into(), source })?;
        let image = ErofsImage::open(&absolute)?;
        Self::new(&absolute, image)
    }

    /// What the image was called when it was opened.
    pub fn name(&self) -> &HostPath {
        &self.name
    }

    /// The open image.
    pub fn image(&self) -> &Arc<File> {
        &self.image
    }

    /// The size of the image in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn new(path: &Path, image: ErofsImage) -> Result<Self, LayerSourceError> {
        // A name may hold `..` or be relative to a process long gone; the file is open, so any will do.
        let name = HostPath::new(path).or_else(|_| HostPath::new(path.canonicalize().unwrap_or_default()))?;
        let size = image.length();
        Ok(Self { name, image: Arc::new(image.into_file()), size })
    }
}

/// The layers of a root file system as a snapshotter hands it over, the top one first.
///
/// What the mounts mean is read by [`Rootfs::of_mounts`]; of that, layers with nothing but their images
/// can be had so far. An upper directory on the host is not used: what the container writes stays in the
/// guest.
///
/// # Errors
/// [`LayerSourceError`] when the mounts mean nothing or something else, or a layer has no usable image.
pub fn layers_of_mounts(mounts: &[Mount]) -> Result<Vec<Layer>, LayerSourceError> {
    let missing = match Rootfs::of_mounts(mounts)? {
        Rootfs::Layers(layers) => return open_layers(&layers),
        Rootfs::Block(block) => Missing::Block(block.source),
        Rootfs::Directory { source, .. } => Missing::SharedDirectory(source),
        Rootfs::Nydus(nydus) => Missing::Nydus(nydus.source),
        Rootfs::Volumes { volumes } => Missing::VirtualVolume(volumes[0].volume_type),
    };
    Err(LayerSourceError::Missing(missing))
}

fn open_layers(layers: &Layers) -> Result<Vec<Layer>, LayerSourceError> {
    if let Upper::Image(image) = &layers.upper {
        return Err(LayerSourceError::Missing(Missing::WritableImage(image.image.clone())));
    }
    if let Some(option) = layers.options.iter().find(|option| !is_for_the_host(option)) {
        return Err(LayerSourceError::Missing(Missing::OverlayOption(option.clone())));
    }
    let directories = layers.layers.iter().filter_map(|layer| match layer {
        LayerSource::MountedAt(directory) => Some(directory.as_path().to_path_buf()),
        LayerSource::Image { .. } => None,
    });
    let mut mounted = from_images(mounted(directories)?)?.into_iter();
    let mut opened = Vec::new();
    for layer in &layers.layers {
        opened.push(match layer {
            LayerSource::MountedAt(_) => mounted.next().expect("one image for each directory"),
            LayerSource::Image { image, devices, .. } if !devices.is_empty() => {
                return Err(LayerSourceError::Missing(Missing::Devices(image.clone())));
            }
            LayerSource::Image { image, verity: Some(_), .. } => {
                return Err(LayerSourceError::Missing(Missing::Verity(image.clone())));
            }
            LayerSource::Image { image, .. } => Layer::open(image)?,
        });
    }
    Ok(opened)
}

/// Whether an option of the host's overlay makes no difference to the guest's: its upper directory is new
/// and in memory, so there is nothing to index and nothing to lose.
fn is_for_the_host(option: &str) -> bool {
    let safe = ["ro", "rw", "index=off", "index=on", "volatile", "xino=off", "xino=on", "xino=auto"];
    safe.contains(&option)
}

/// The layers of a root file system that is mounted at `rootfs`, the top one first: an overlay of
/// mounted EROFS images, or one EROFS image.
///
/// # Errors
/// [`LayerSourceError`] when `rootfs` is not such a mount, or a layer has no usable image.
pub fn layers_of_rootfs(rootfs: impl AsRef<Path>) -> Result<Vec<Layer>, LayerSourceError> {
    let rootfs = rootfs.as_ref();
    match erofs::overlay_layers(rootfs, None) {
        Err(RootfsError::NotOverlay { fs_type, .. }) if fs_type == "erofs" => {
            from_images(mounted([rootfs.to_path_buf()])?)
        }
        images => from_images(images.map_err(|error| LayerSourceError::Rootfs(error.into()))?),
    }
}

/// The images of layers that are mounted at these directories, in their order.
pub(crate) fn mounted_layers(
    directories: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<Layer>, LayerSourceError> {
    from_images(mounted(directories)?)
}

fn mounted<D: Into<LowerDir>>(
    directories: impl IntoIterator<Item = D>,
) -> Result<Vec<LayerImage>, LayerSourceError> {
    erofs::layer_images(directories).map_err(|error| LayerSourceError::Mounted(error.into()))
}

fn from_images(images: Vec<LayerImage>) -> Result<Vec<Layer>, LayerSourceError> {
    let layer = |layer: LayerImage| {
        if layer.data_only {
            return Err(LayerSourceError::DataOnly(layer.directory));
        }
        let path = layer.image.path().to_path_buf();
        Layer::new(&path, layer.image)
    };
    images.into_iter().map(layer).collect()
}

#[cfg(test)]
impl Layer {
    pub(crate) fn for_test(name: &str) -> Self {
        let image = Arc::new(tempfile::tempfile().unwrap());
        Self { name: HostPath::new(name).unwrap(), image, size: 4096 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Mount { kind: kind.into(), source: "/nonexistent/layer.erofs".into(), options }
    }

    #[test]
    fn what_cannot_be_carried_out_yet_is_named() {
        let missing = |mounts: &[Mount]| match layers_of_mounts(mounts).unwrap_err() {
            LayerSourceError::Missing(missing) => missing,
            other => panic!("{other}"),
        };
        let layer = || mount("erofs", &["ro", "loop"]);
        let overlay = |options: &[&str]| mount("format/overlay", options);
        let lower = "lowerdir={{ mount 0 }}";
        let devices = [mount("erofs", &["ro", "device=/a"]), overlay(&[lower])];
        assert!(matches!(missing(&devices), Missing::Devices(_)));
        let verity = [mount("erofs", &["X-containerd.dmverity=/a"]), overlay(&[lower])];
        assert!(matches!(missing(&verity), Missing::Verity(_)));
        let upper = ["upperdir={{ mount 1 }}/upper", "workdir={{ mount 1 }}/work", lower];
        assert!(matches!(
            missing(&[layer(), mount("ext4", &["rw"]), overlay(&upper)]),
            Missing::WritableImage(_)
        ));
        assert!(matches!(missing(&[layer(), overlay(&[lower, "metacopy=on"])]), Missing::OverlayOption(_)));
        assert!(matches!(missing(&[mount("ext4", &[])]), Missing::Block(_)));
        assert!(matches!(missing(&[mount("bind", &[])]), Missing::SharedDirectory(_)));
    }

    #[test]
    fn a_layer_that_is_not_there_is_an_error() {
        let missing = layers_of_mounts(&[mount("erofs", &["ro", "loop"])]).unwrap_err();
        assert!(matches!(missing, LayerSourceError::Image(_)), "{missing}");
        let empty = layers_of_mounts(&[mount("overlay", &["index=off"])]).unwrap_err();
        assert!(matches!(empty, LayerSourceError::Mounts(MountsError::Overlay(_))), "{empty}");
        assert!(layers_of_mounts(&[]).is_err());
    }

    #[test]
    fn a_file_that_is_no_image_is_no_layer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, [0; 8192]).unwrap();
        let error = Layer::open(file.path()).unwrap_err();
        assert!(matches!(error, LayerSourceError::Image(_)), "{error}");
    }
}
