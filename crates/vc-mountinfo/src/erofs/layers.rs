//! The image files of all layers of a root filesystem, in their order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::layer::{LayerError, LayerImage, image_of};
use crate::overlay::{LowerDir, OverlayError, OverlayOptions};
use crate::{Fields, Lookup, LookupError, Pin, Symlinks, Way};

/// The image of one of the layers is not known, or not usable.
#[derive(Debug, thiserror::Error)]
#[error("layer {index} of {count} ({directory:?}) has no usable image")]
pub struct LayersError {
    /// Which layer, counted from 1 at the top.
    pub index: usize,
    /// How many layers there are.
    pub count: usize,
    /// The layer's directory.
    pub directory: PathBuf,
    /// What is wrong with it.
    pub source: LayerError,
}

/// Why the layers of a mounted overlay are not known.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// Nothing is known of the mount.
    #[error("cannot tell what is mounted at {rootfs:?}")]
    Lookup {
        /// The path asked for.
        rootfs: PathBuf,
        /// What failed.
        source: LookupError,
    },
    /// It is not an overlay.
    #[error("{rootfs:?} is a mount of {fs_type:?}, not an overlay")]
    NotOverlay {
        /// The path asked for.
        rootfs: PathBuf,
        /// The type of filesystem.
        fs_type: OsString,
    },
    /// Its options make no sense.
    #[error("cannot read the layers of the overlay {rootfs:?} from its mount options")]
    Options {
        /// The path asked for.
        rootfs: PathBuf,
        /// What is wrong with them.
        source: OverlayError,
    },
    /// A lower directory is relative to where the mounter was, which nothing tells.
    #[error("the overlay {rootfs:?} was mounted with the relative lower directory {lower:?}; say from where")]
    Relative {
        /// The path asked for.
        rootfs: PathBuf,
        /// The first relative one.
        lower: PathBuf,
    },
    /// One of its layers has no usable image.
    #[error(transparent)]
    Layers(LayersError),
}

/// The image behind the EROFS layer mounted at `directory`.
///
/// # Errors
/// As [`LayerLookup::image`].
pub fn layer_image(directory: impl AsRef<Path>) -> Result<LayerImage, LayerError> {
    LayerLookup::new().image(directory)
}

/// The images behind the lower directories of a root filesystem, in their order.
///
/// The directories are those of [`OverlayOptions::lower`], or plain paths.
///
/// ```no_run
/// use vc_mountinfo::{OverlayOptions, erofs};
///
/// let overlay = OverlayOptions::from_mount_options(["lowerdir=/layers/2:/layers/1"])?;
/// for layer in erofs::layer_images(overlay.lower)? {
///     println!("{:?} is {:?}", layer.directory, layer.image.path());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`LayerLookup::images`].
pub fn layer_images<D: Into<LowerDir>>(
    directories: impl IntoIterator<Item = D>,
) -> Result<Vec<LayerImage>, LayersError> {
    LayerLookup::new().images(directories)
}

/// The images behind the layers of the overlay mounted at `rootfs`, top first.
///
/// # Errors
/// As [`LayerLookup::of_overlay`].
pub fn overlay_layers(rootfs: impl AsRef<Path>, base: Option<&Path>) -> Result<Vec<LayerImage>, RootfsError> {
    LayerLookup::new().of_overlay(rootfs, base)
}

/// Finds the images behind layers; the functions beside it make one for a single question.
#[derive(Debug)]
pub struct LayerLookup {
    lookup: Lookup,
}

impl Default for LayerLookup {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerLookup {
    /// Looks up mounts by the best way.
    pub fn new() -> Self {
        let lookup = Lookup::new().symlinks(Symlinks::Follow);
        Self { lookup: lookup.fields(Fields { root: true, fs_options: true, mount_point: false }) }
    }

    /// Looks up mounts by this way only.
    #[must_use]
    pub fn forced(self, way: Way) -> Self {
        Self { lookup: self.lookup.forced(way) }
    }

    /// The image behind the EROFS layer mounted at `directory`.
    ///
    /// The mount is pinned meanwhile, so nothing can take its place.
    ///
    /// # Errors
    /// [`LayerError`] tells what of the way from the directory to a usable file does not hold.
    pub fn image(&mut self, directory: impl AsRef<Path>) -> Result<LayerImage, LayerError> {
        let directory = directory.as_ref();
        let pin = Pin::open(directory, Symlinks::Follow).map_err(LayerError::Open)?;
        image_of(directory, &pin, self.lookup.of(&pin))
    }

    /// The images behind the lower directories of a root filesystem, in their order.
    ///
    /// All are pinned, then looked up at once, then each image is opened.
    ///
    /// # Errors
    /// [`LayersError`] for the first layer without a usable image.
    pub fn images<D: Into<LowerDir>>(
        &mut self,
        directories: impl IntoIterator<Item = D>,
    ) -> Result<Vec<LayerImage>, LayersError> {
        let directories: Vec<LowerDir> = directories.into_iter().map(Into::into).collect();
        let failed = |index: usize, source| LayersError {
            index: index + 1,
            count: directories.len(),
            directory: directories[index].path.clone(),
            source,
        };
        let pins = directories.iter().enumerate().map(|(index, directory)| {
            Pin::open(&directory.path, Symlinks::Follow).map_err(|e| failed(index, LayerError::Open(e)))
        });
        let pins = pins.collect::<Result<Vec<_>, _>>()?;
        let mounts = self.lookup.all_of(&pins);
        // Each pin is dropped when its image is open: an overlay may have 500 layers, a process 1024 files.
        let layers = directories.iter().zip(pins).zip(mounts).enumerate();
        let layers = layers.map(|(index, ((directory, pin), mount))| {
            image_of(&directory.path, &pin, mount)
                .map(|layer| LayerImage { data_only: directory.data_only, ..layer })
                .map_err(|source| failed(index, source))
        });
        layers.collect()
    }

    /// The images behind the layers of the overlay mounted at `rootfs`, top first.
    ///
    /// `base` is where relative lower directories start: the working directory of whoever mounted it.
    ///
    /// The overlay tells its lower directories by name only. So they must be as they were when it was
    /// mounted: one that something else was mounted over since is taken for the layer.
    ///
    /// # Errors
    /// [`RootfsError`] when `rootfs` is not an overlay, or one of its layers has no usable image.
    pub fn of_overlay(
        &mut self,
        rootfs: impl AsRef<Path>,
        base: Option<&Path>,
    ) -> Result<Vec<LayerImage>, RootfsError> {
        let lower = overlay_lower_dirs(&mut self.lookup, rootfs.as_ref(), base)?;
        self.images(lower).map_err(RootfsError::Layers)
    }
}

/// The lower directories of the overlay mounted at `rootfs`, absolute, top first.
fn overlay_lower_dirs(
    lookup: &mut Lookup,
    rootfs: &Path,
    base: Option<&Path>,
) -> Result<Vec<LowerDir>, RootfsError> {
    let name = || rootfs.to_path_buf();
    let mount = lookup.at(rootfs).map_err(|source| RootfsError::Lookup { rootfs: name(), source })?;
    if *mount.fs_type != *"overlay" {
        return Err(RootfsError::NotOverlay { rootfs: name(), fs_type: mount.fs_type.into_owned() });
    }
    let options = mount.fs_options.as_deref().unwrap_or_default();
    let overlay = OverlayOptions::from_mount_table(options);
    let mut overlay = overlay.map_err(|source| RootfsError::Options { rootfs: name(), source })?;
    if let Some(base) = base {
        overlay = overlay.resolved(base);
    }
    match overlay.lower.iter().find(|lower| lower.path.is_relative()) {
        Some(relative) => Err(RootfsError::Relative { rootfs: name(), lower: relative.path.clone() }),
        None => Ok(overlay.lower),
    }
}
