//! The storage of a container: what it needs, how it is prepared, and how a plan is carried out.

mod copy;
mod edits;
mod prepared;
mod request;
mod shares;

pub use copy::CopyFailed;
pub use prepared::{ContainerStorage, StorageError};
pub use request::{InvalidPageSize, storage_request};

pub(crate) use copy::copy;
pub(crate) use edits::apply;
pub(crate) use shares::{LeftShares, Shares, clean_up_shares};
