//! What only this adapter can be told.

use std::path::PathBuf;

/// Where QEMU and its helper are, and how they are bound to this process.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The QEMU program, found through `PATH` when it has no slash.
    pub program: PathBuf,
    /// The program that serves vsock where the host has no `/dev/vhost-vsock`.
    pub vsock_program: PathBuf,
    /// Whether the kernel kills the machine when this process dies, however it dies.
    pub die_with_parent: bool,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            vsock_program: "vhost-device-vsock".into(),
            die_with_parent: true,
        }
    }
}
