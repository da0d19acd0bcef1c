//! Storages: the mounts that the host asks for, by driver.

mod directories;
mod overlay;
mod request;
mod table;

pub use overlay::{LowerdirError, check_lowerdirs, lowerdirs};
pub use request::{Driver, InvalidStorage, StorageSpec};
pub use table::{StorageError, StorageTable};
