//! Layers: open, checked image files, however the caller names them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_mountinfo::erofs::{self, ErofsImage, ImageError, LayerImage, LayersError};
use vc_types::{HostPath, InvalidPath};

/// One read-only layer of a root file system: an EROFS image, open and checked.
///
/// The open file is what counts. Its name is kept for messages.
#[derive(Clone, Debug)]
pub struct Layer {
    name: HostPath,
    image: Arc<File>,
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
    /// A mounted layer that only holds data for the others.
    #[error("{0:?} is a data-only layer, which is not supported yet")]
    DataOnly(PathBuf),
}

impl Layer {
    /// Opens an image file and checks that it can serve as a layer.
    ///
    /// # Errors
    /// [`LayerSourceError`] when it cannot be read, is no EROFS image, is damaged, truncated, or one of
    /// several files of an image.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LayerSourceError> {
        Self::open_with_devices(path, 0)
    }

    /// The same for an image with metadata only, whose data is in as many other files.
    ///
    /// # Errors
    /// [`LayerSourceError`] as of [`open`](Self::open), or when its device table names another number.
    pub fn open_with_devices(path: impl AsRef<Path>, devices: usize) -> Result<Self, LayerSourceError> {
        let path = path.as_ref();
        let absolute = std::path::absolute(path)
            .map_err(|source| LayerSourceError::Absolute { path: path.into(), source })?;
        let image = ErofsImage::open_with_devices(&absolute, devices)?;
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

    fn new(path: &Path, image: ErofsImage) -> Result<Self, LayerSourceError> {
        // A name may hold `..` or be relative to a process long gone; the file is open, so any will do.
        let name = HostPath::new(path).or_else(|_| HostPath::new(path.canonicalize().unwrap_or_default()))?;
        Ok(Self { name, image: Arc::new(image.into_file()) })
    }
}

/// The images of layers that are mounted at these directories, in their order.
pub(crate) fn mounted_layers(
    directories: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<Layer>, LayerSourceError> {
    let images = erofs::layer_images(directories).map_err(|error| LayerSourceError::Mounted(error.into()))?;
    from_images(images)
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
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_image_is_no_layer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, [0; 8192]).unwrap();
        let error = Layer::open(file.path()).unwrap_err();
        assert!(matches!(error, LayerSourceError::Image(_)), "{error}");
    }
}
