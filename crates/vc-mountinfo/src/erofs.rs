//! EROFS images, and the images behind the layers of a mounted root filesystem.

mod image;
mod layer;
mod layers;
mod superblock;

pub use image::{ErofsImage, ImageError};
pub use layer::{LayerError, LayerImage, UuidCheck, Via, layer_image};
pub use layers::{LayersError, RootfsError, layer_images, overlay_layers};
pub use superblock::{Superblock, SuperblockError};
