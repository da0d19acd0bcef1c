//! Runs QEMU as a [`vc_hypervisor::Hypervisor`].
//!
//! A machine is q35 with qboot, an uncompressed kernel entered by PVH, memory in a memfd, QMP and the
//! console over inherited file descriptors, and one PCIe root port for each device that may be
//! plugged. Its agent is reached by the kernel's vsock or, where the host has none, by
//! `vhost-device-vsock`. One that starts paused, or has conventional bridges, has SeaBIOS.
//!
//! Devices of the host go into a machine that is paused still ([`starts_paused`][paused]), or one whose guest is up: for
//! the first moments of a boot, QEMU keeps the kernel's first bytes where plugging one overwrites them.
//!
//! [paused]: vc_hypervisor::MachineSpec::starts_paused
//!
//! ```text
//!  QemuMachine ──> Shared ──> Qmp (one task owns the stream) ══ QMP ══> qemu ══ vhost-user ══> vsock daemon
//!                    │                                                   ▲                        ▲
//!                    └─ Devices          Process (one task owns each child, tells its end) ───────┘
//! ```

mod accelerator;
mod args;
mod config;
mod control;
mod devices;
mod end;
mod image;
mod launch;
mod machine;
#[cfg(test)]
mod model;
mod plug;
mod process;
mod qmp;
mod reattach;
mod resize;
mod sockets;
mod statistics;
mod stock;
mod sys;
mod tail;
mod vsock;

pub use config::{MachineType, QemuConfig, User};
pub use launch::Qemu;
pub use machine::QemuMachine;
