//! The user namespace of a container, made before the container: libcontainer makes one only where systemd keeps the
//! cgroups, but it joins any.

use super::EXECUTOR_WAIT;
use crate::error::CallError;
use crate::executor::{IdMappings, Task};
use crate::guest::Guest;
use crate::reaper::Reaper;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use vc_types::Deadline;

/// A process that holds a user namespace until the container has joined it; killed when this is dropped.
#[derive(Debug)]
pub(super) struct UserNamespace {
    reaper: Reaper,
    holder: Pid,
}

impl UserNamespace {
    /// Makes the namespace that `spec` asks for, if it does, and has `spec` join it.
    pub(super) async fn make(guest: &Guest, spec: &mut Spec) -> Result<Option<Self>, CallError> {
        let Some(linux) = spec.linux_mut() else { return Ok(None) };
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        let wanted = |namespace: &&mut oci_spec::runtime::LinuxNamespace| {
            namespace.typ() == LinuxNamespaceType::User && namespace.path().is_none()
        };
        let Some(namespace) = namespaces.iter_mut().find(wanted) else { return Ok(None) };
        let mappings = IdMappings {
            users: linux.uid_mappings().clone().unwrap_or_default(),
            groups: linux.gid_mappings().clone().unwrap_or_default(),
        };
        let deadline = Deadline::after(EXECUTOR_WAIT);
        let task = Task::UserNamespace(mappings);
        let (holder, _) = guest.launcher().launch(&task, None, None, deadline).await?;
        namespace.set_path(Some(format!("/proc/{holder}/ns/user").into()));
        linux.set_namespaces(Some(namespaces));
        Ok(Some(Self { reaper: guest.reaper().clone(), holder }))
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = self.reaper.signal(self.holder, libc::SIGKILL);
    }
}
