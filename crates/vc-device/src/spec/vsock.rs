//! The socket device between host and guest.

use std::fs::File;
use std::sync::Arc;

use vc_types::{DeviceId, HostPath, VsockCid};

/// Not the context id of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no guest's vsock context id: 3 to 4294967294", .0.0)]
pub struct InvalidGuestCid(pub VsockCid);

/// Who moves the data of a vsock device.
#[derive(Clone, Debug)]
pub enum VsockBackend {
    /// The kernel: `/dev/vhost-vsock`, open.
    Kernel(Arc<File>),
    /// A process that serves this Unix socket, such as `vhost-device-vsock`.
    VhostUser(HostPath),
}

/// A vsock device that a machine is to get. A guest has at most one (virtio 1.2, section 5.10).
#[derive(Clone, Debug)]
pub struct VsockSpec {
    id: DeviceId,
    cid: VsockCid,
    backend: VsockBackend,
}

impl VsockSpec {
    /// Checks the context id.
    ///
    /// # Errors
    /// [`InvalidGuestCid`] for 0, 1 and 2, which have other meanings, and for `VMADDR_CID_ANY` (vsock(7)).
    pub fn new(id: DeviceId, cid: VsockCid, backend: VsockBackend) -> Result<Self, InvalidGuestCid> {
        if (3..u32::MAX).contains(&cid.0) { Ok(Self { id, cid, backend }) } else { Err(InvalidGuestCid(cid)) }
    }

    /// Names the device within its machine.
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// The guest's context id.
    pub fn cid(&self) -> VsockCid {
        self.cid
    }

    /// Who moves the data.
    pub fn backend(&self) -> &VsockBackend {
        &self.backend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_have_context_ids_from_3_on() {
        let make = |cid| {
            let backend = VsockBackend::VhostUser(HostPath::new("/v.sock").unwrap());
            VsockSpec::new("vsock0".parse().unwrap(), VsockCid(cid), backend)
        };
        assert_eq!(make(3).unwrap().cid(), VsockCid(3));
        for bad in [0, 1, 2, u32::MAX] {
            assert_eq!(make(bad).unwrap_err(), InvalidGuestCid(VsockCid(bad)));
        }
    }
}
