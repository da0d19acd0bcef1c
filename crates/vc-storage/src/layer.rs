//! Layers: open, checked image files, however the caller names them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_mountinfo::erofs::{self, ErofsImage, ImageError, LayerImage, LayersError, RootfsError};
use vc_mountinfo::{LowerDir, OverlayError, OverlayOptions};
use vc_types::{HostPath, InvalidPath};

use crate::mount::Mount;

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
    /// The options of an overlay name no layers.
    #[error("cannot read the layers from the mount's options")]
    Options(#[from] OverlayError),
    /// A layer that only holds data for the others.
    #[error("{0:?} is a data-only layer, which is not supported yet")]
    DataOnly(PathBuf),
    /// A root file system in a form that is not supported.
    #[error(
        "a root file system of {count} mounts, the first of type {kind:?}, is not supported yet; hand over one overlay of mounted EROFS layers, or one EROFS image"
    )]
    MountKind {
        /// How many mounts.
        count: usize,
        /// The type of the first.
        kind: String,
    },
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
/// One `overlay` whose lower directories are mounted EROFS images, or one `erofs` image that is not
/// mounted. An upper directory on the host is not used: what the container writes stays in the guest.
///
/// # Errors
/// [`LayerSourceError`] when the mounts have another form, or a layer has no usable image.
pub fn layers_of_mounts(mounts: &[Mount]) -> Result<Vec<Layer>, LayerSourceError> {
    match mounts {
        [mount] if mount.kind == "overlay" => {
            let overlay = OverlayOptions::from_mount_options(&mount.options)?;
            from_images(mounted(overlay.lower)?)
        }
        [mount] if mount.kind == "erofs" => Ok(vec![Layer::open(&mount.source)?]),
        _ => {
            let kind = mounts.first().map(|mount| mount.kind.clone()).unwrap_or_default();
            Err(LayerSourceError::MountKind { count: mounts.len(), kind })
        }
    }
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
    fn forms_that_are_not_supported_are_named() {
        let list = [mount("erofs", &[]), mount("format/mkdir/overlay", &["lowerdir={{ mount 0 }}"])];
        let error = layers_of_mounts(&list).unwrap_err();
        assert!(
            matches!(&error, LayerSourceError::MountKind { count: 2, kind } if kind == "erofs"),
            "{error}"
        );
        let bind = layers_of_mounts(&[mount("bind", &[])]).unwrap_err();
        assert!(matches!(&bind, LayerSourceError::MountKind { count: 1, .. }), "{bind}");
        assert!(layers_of_mounts(&[]).is_err());
        let empty = layers_of_mounts(&[mount("overlay", &["index=off"])]).unwrap_err();
        assert!(matches!(empty, LayerSourceError::Options(_)), "{empty}");
        let missing = layers_of_mounts(&[mount("erofs", &["ro", "loop"])]).unwrap_err();
        assert!(matches!(missing, LayerSourceError::Image(_)), "{missing}");
    }

    #[test]
    fn a_file_that_is_no_image_is_no_layer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, [0; 8192]).unwrap();
        let error = Layer::open(file.path()).unwrap_err();
        assert!(matches!(error, LayerSourceError::Image(_)), "{error}");
    }
}
