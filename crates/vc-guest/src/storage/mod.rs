//! Storages: the mounts that the host asks for, by driver.

mod error;
mod hugepages;
mod layers;
mod made;
mod markers;
mod mounting;
mod overlay;
mod ownership;
mod place;
mod request;
mod table;
mod verity;
mod watch;

pub use error::StorageError;
pub use hugepages::HugePages;
pub use layers::{Layer, Layers};
pub use markers::NewDirectory;
pub use overlay::{LowerdirError, check_lowerdirs, lowerdirs};
pub use ownership::FsGroup;
pub use request::{Driver, InvalidStorage, StorageSpec};
pub use table::StorageTable;
pub use verity::{VerityError, VerityOptions};
