//! What the agent is told when a sandbox or a container is to be.

use oci_spec::runtime::Spec;
use vc_types::{ContainerId, SandboxId};

use crate::Storage;

/// Prepares the guest for containers.
#[derive(Clone, Debug)]
pub struct CreateSandbox {
    /// The sandbox's id.
    pub id: SandboxId,
    /// The guest's host name.
    pub hostname: String,
    /// Lines of the guest's `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Mounted for all containers of the sandbox, in this order.
    pub storages: Vec<Storage>,
}

/// Creates a container.
#[derive(Clone, Debug)]
pub struct CreateContainer {
    /// The container's id.
    pub id: ContainerId,
    /// What it is, by the OCI runtime specification; every path in it is one of the guest.
    pub spec: Spec,
    /// Mounted before it is created, in this order.
    pub storages: Vec<Storage>,
    /// Whether it joins the pid namespace that all containers of the sandbox share.
    pub shared_pid_namespace: bool,
}
