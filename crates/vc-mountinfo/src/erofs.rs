//! EROFS images, and the images behind the layers of a mounted root filesystem.

mod image;
mod layer;
mod layers;
mod name;
mod superblock;

pub use image::{ErofsImage, ImageError};
pub use layer::{LayerError, LayerImage, UuidCheck, Via};
pub use layers::{LayerLookup, LayersError, RootfsError, layer_image, layer_images, overlay_layers};
pub use name::{UnsupportedSource, check_layer_name};
pub use superblock::{Superblock, SuperblockError};
