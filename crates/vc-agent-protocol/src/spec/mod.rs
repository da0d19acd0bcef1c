//! Conversions between the OCI runtime specification and the messages in [`oci`](crate::oci).
//!
//! Both directions are `TryFrom` on references, for [`Spec`](oci_spec::runtime::Spec) as a whole and
//! for the parts that travel alone: [`Process`](oci_spec::runtime::Process),
//! [`LinuxResources`](oci_spec::runtime::LinuxResources) and [`Mount`](oci_spec::runtime::Mount).
//!
//! What the wire cannot tell apart:
//! - proto3 has no absent scalar, so a zero, an empty text and an empty list mean "not given". The
//!   device numbers of a cgroup rule are the exception: `None`, which means any, travels as -1.
//! - Capability sets and limits that are not given are empty sets and lists.
//!
//! Fields without a place on the wire (among them `umask`, `domainname`, `timeOffsets`, `unified`,
//! `rdma`, `ioPriority`, `scheduler`, id-mapped mounts, all of `intelRdt` but its cache schema, and
//! seccomp's listener) are dropped by `TryFrom`. A sender uses [`to_wire`], which refuses them by name:
//! a container that gets less than it asked for is worse than none. Whoever knows that it can do
//! without a field takes it out before; [`fields_lost`] tells which those are.

mod error;
mod hooks;
mod linux;
mod lost;
mod process;
mod resources;
mod root;
mod seccomp;
mod value;

pub use error::ConvertError;
pub use lost::{Travels, fields_lost, to_wire};

#[cfg(test)]
mod tests;
