//! The storage of a container: what it needs, how it is prepared, and how a plan is carried out.

mod copy;
mod edits;
mod follow;
mod image;
mod prepared;
mod request;
mod shares;
mod volumes;

pub use copy::CopyFailed;
pub use image::ImageFailed;
pub use prepared::{ContainerStorage, StorageError};
pub use request::{InvalidPageSize, storage_request};
pub use shares::Sharing;

pub(crate) use copy::{blocking, copy};
pub(crate) use edits::apply;
pub(crate) use follow::{Following, Watch, settled_copy};
pub(crate) use image::{make as make_image, remove as remove_image};
pub(crate) use shares::{LeftShares, Shares, clean_up_shares};
pub(crate) use volumes::{VolumeUse, Volumes};
