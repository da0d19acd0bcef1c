//! The loopback interface.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsFd;

/// Brings `lo` up; the kernel gives it its addresses then.
pub(super) fn loopback_up() -> nix::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    crate::sys::bring_up(any.as_fd(), "lo")
}
