//! The host side of a directory that host and guest share.
//!
//! [`SharedDir`] is that directory: files and directories of the host are bound into it while the guest runs.
//! A [`Server`] serves it to a machine by virtio-fs: virtiofsd, or nydusd, which mounts images beside it when it is
//! asked to ([`NydusApi`]). [`Source`] reads what is copied instead.

mod bind;
mod error;
mod mounts;
pub mod nydus;
mod server;
mod shared_dir;
mod source;
mod sys;

pub use bind::{Bind, InvalidShareName, ShareName};
pub use error::{ShareError, Step};
pub use nydus::{NydusApi, NydusError};
pub use server::{
    Cache, Server, ServerConfig, ServerEnd, ServerError, ServerKind, find_nydusd, find_virtiofsd,
};
pub use shared_dir::SharedDir;
pub use source::{Source, SourceEntry, SourceError, SourceKind};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
