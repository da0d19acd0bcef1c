//! `vc` with a real QEMU, a real guest and real EROFS layers.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "vm/bad_input.rs"]
mod bad_input;
#[path = "vm/death.rs"]
mod death;
#[path = "vm/guest_build.rs"]
mod guest_build;
#[path = "vm/host_disks.rs"]
mod host_disks;
#[path = "vm/kvm.rs"]
mod kvm;
#[path = "vm/nydus.rs"]
mod nydus;
#[path = "vm/oci.rs"]
mod oci;
#[path = "vm/oci_table.rs"]
mod oci_table;
#[path = "vm/output.rs"]
mod output;
#[path = "vm/rootfs.rs"]
mod rootfs;
#[path = "vm/run.rs"]
mod run;
#[path = "vm/terminal.rs"]
mod terminal;
#[path = "vm/volumes.rs"]
mod volumes;
