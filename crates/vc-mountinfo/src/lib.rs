//! What backs this path on Linux: which mount it is, and which file stands behind that mount.
//!
//! * [`Lookup`] finds the mount at a path, by the kernel's own word and not by comparing text.
//! * [`mountinfo`] parses the mount table in place; [`OverlayOptions`] reads an overlay's directories.
//! * [`LoopFile`] is the file behind a loop device, proven by device and inode.
//! * [`erofs`] checks images, and finds those behind the layers of a root filesystem.
//!
//! ```
//! let entry = vc_mountinfo::mountinfo::Entry::parse(b"36 35 7:0 / /mnt/a\\040b ro - erofs /dev/loop0 ro")?;
//! assert_eq!(entry.mount_point().to_str(), Some("/mnt/a b"));
//! assert_eq!(entry.device.major(), 7);
//! # Ok::<(), vc_mountinfo::mountinfo::MalformedLine>(())
//! ```

mod bytes;
mod cache;
mod device;
mod device_use;
pub mod erofs;
mod escape;
mod file_id;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod lookup;
mod loop_device;
mod mount;
pub mod mountinfo;
mod mounts;
mod overlay;
mod pin;
pub mod proc_mounts;
mod process;
mod sys;
mod table;
mod walk;
mod watch;

pub use cache::{CachedLookup, MountOrigin};
pub use device::{DeviceNumber, InvalidDeviceNumber};
pub use device_use::{DeviceUse, DeviceUseError, device_uses, loops_of_file};
pub use escape::unescape;
pub use file_id::FileId;
pub use lookup::{Lookup, LookupError, Symlinks, Way};
pub use loop_device::{LoopError, LoopFile};
pub use mount::{Fields, Mount};
pub use mountinfo::{MountInfoReader, ReadError};
pub use mounts::Mounts;
pub use overlay::{LowerDir, OverlayError, OverlayOptions};
pub use pin::{Pin, PinError};
pub use process::{ProcessView, ProcessViewError};
pub use table::MountTable;
pub use watch::{MountEvent, MountEvents, MountWatch};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
