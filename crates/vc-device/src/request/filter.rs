//! What of a container's devices stays on the host, and in which order the rest comes.

use super::{DeviceRequest, DeviceSource, Requested};

/// Majors of CD-ROM drives (`include/uapi/linux/major.h`). They are numbers of block devices; character
/// devices have drivers of their own under the same numbers.
const CDROM_MAJORS: [u32; 14] = [11, 15, 16, 17, 18, 20, 23, 24, 25, 26, 27, 28, 29, 32];

/// The major of floppy drives (`FLOPPY_MAJOR`).
const FLOPPY_MAJOR: u32 = 2;

/// Devices, and those that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// What goes to the guest, in the given order.
    pub kept: Vec<Requested>,
    /// What stays on the host. Nothing was attached for it yet, so nothing is to be released.
    pub dropped: Vec<(DeviceRequest, Dropped)>,
}

/// Why a device stays on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A CD-ROM drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
}

/// Leaves out CD-ROM and floppy drives.
pub fn without_removable_media(devices: Vec<Requested>) -> Filtered {
    let mut filtered = Filtered { kept: Vec::new(), dropped: Vec::new() };
    for device in devices {
        match device {
            Requested::Device(request) => match removable(&request) {
                Some(why) => filtered.dropped.push((request, why)),
                None => filtered.kept.push(Requested::Device(request)),
            },
            Requested::Vfio(_) => filtered.kept.push(device),
        }
    }
    filtered
}

/// Puts `/dev/vfio/vfio` first; everything else keeps its order. The agent opens groups by it.
pub fn control_first(devices: &mut [Requested]) {
    devices.sort_by_key(|device| !device.is_vfio_control());
}

fn removable(request: &DeviceRequest) -> Option<Dropped> {
    let DeviceSource::Block { number, .. } = &request.source else { return None };
    match number.major() {
        FLOPPY_MAJOR => Some(Dropped::Floppy),
        major => CDROM_MAJORS.contains(&major).then_some(Dropped::Cdrom),
    }
}
