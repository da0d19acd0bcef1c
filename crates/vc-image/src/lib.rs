//! Builds a guest image: a kernel that QEMU starts without a boot loader, and an initrd with the modules that containers
//! need and a program as `/init`.
//!
//! [`ImageSpec`] says what an image is made of, and makes it; [`debian`] has the kernel, if one takes Debian's.
//! [`KernelSource`], [`Kernel`] and [`Archive`] are for other images of that kernel.
//!
//! The same kernel, modules and program give the same bytes, wherever they are put together.

mod archive;
pub mod command;
pub mod debian;
mod decompress;
mod file;
mod image;
mod initrd;
mod kernel;
mod lock;
mod lz4;
mod manifest;
mod modules;
mod program;
mod stamp;
mod vmlinux;

pub use archive::{Archive, TooLargeError};
pub use decompress::DecompressError;
pub use file::FileError;
pub use image::{FILES, ImageError, ImageSpec, Outcome};
pub use kernel::{Kernel, KernelError, KernelSource};
pub use manifest::sha256;
pub use modules::{GUEST, Module, ModuleError, ModuleSet, ModulesError, Wanted};
pub use program::{ProgramError, is_static};
pub use vmlinux::VmlinuxError;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
