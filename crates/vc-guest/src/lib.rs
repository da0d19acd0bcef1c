//! The agent in the guest: PID 1 of vc's guest image, serving the agent protocol over vsock.
//!
//! ```text
//! host -- vsock 1024 --> service --> sandbox, container --> storage (mounts), executor (libcontainer)
//!                                         |
//!                                    reaper (the only waitpid), stdio, cgroup
//! ```
//!
//! The binary is the product; this library is its parts, so that those which need no virtual machine
//! can be tested without one. The README describes the image that it expects.

mod block;
mod boot;
mod cgroup;
mod cmdline;
mod container;
mod debug_console;
mod device_mapper;
mod devices;
mod error;
mod executor;
mod guest;
mod hooks;
mod limits;
mod log;
mod machine;
mod modules;
mod mount;
mod mount_options;
mod network;
mod oom;
mod program;
mod reaper;
mod resources;
mod sandbox;
mod service;
mod spec;
mod statistics;
mod stdio;
mod storage;
mod sys;
mod uevent;

pub use block::{
    BlockAddress, BlockError, BlockSource, DeviceName, InvalidAddress, ScsiAddress, wait_for_block,
};
pub use boot::{power_off, prepare_process, run_init};
pub use cgroup::{Cgroup, CgroupError};
pub use cmdline::{Settings, parse_cmdline};
pub use devices::DeviceRuleError;
pub use executor::run_helper;
pub use guest::Guest;
pub use machine::{CopyFileError, HotplugError, VolumeError, copy_file};
pub use modules::{ModuleError, ModuleIndex, ModuleLoader};
pub use mount_options::MountOptions;
pub use network::NetworkError;
pub use reaper::{Exit, ExitStatus, Reaper, wait};
pub use resources::{Limit, LimitError, limits};
pub use service::{Connections, Server, server};
pub use spec::{SpecError, container_spec, exec_process};
pub use storage::{Driver, FsGroup, HugePages, InvalidStorage, Layer, Layers, LowerdirError, NewDirectory};
pub use storage::{StorageError, StorageSpec, StorageTable, VerityError, VerityOptions};
pub use storage::{check_lowerdirs, lowerdirs};
pub use uevent::DeviceEvents;

/// Whether seccomp filters are built in: the feature `seccomp`.
pub const SUPPORTS_SECCOMP: bool = cfg!(feature = "seccomp");

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
