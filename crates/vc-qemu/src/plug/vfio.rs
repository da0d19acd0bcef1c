//! PCI functions of the host, by IOMMU group or by IOMMUFD. Source: QEMU's
//! `docs/devel/vfio-iommufd.rst` (9.0 and later).

use serde_json::{Value, json};
use vc_device::{VfioFunction, VfioHandle, VfioPciSpec};

use crate::devices::Taken;

use super::place::put;
use super::recipe::{Command, Recipe};

/// How to plug a function of the host.
pub(crate) fn recipe(spec: &VfioPciSpec, taken: Taken) -> Recipe {
    let mut recipe = Recipe::default();
    let id = spec.id.as_str();
    let device = match &spec.handle {
        VfioHandle::Group(_) => by_group(spec),
        VfioHandle::Cdev { device, iommufd } => {
            let (object, fd) = (format!("iommufd-{id}"), format!("vfio-{id}"));
            let iommu = format!("iommu-{id}");
            recipe.pass_descriptor(&iommu, iommufd);
            let add = json!({"qom-type": "iommufd", "id": object, "fd": iommu});
            let delete = Command::new("object-del", json!({"id": object}));
            recipe.make("open the IOMMU", Command::new("object-add", add), delete);
            recipe.pass_descriptor(&fd, device);
            json!({"driver": "vfio-pci", "id": id, "fd": fd, "iommufd": object})
        }
    };
    recipe.device("add the host's device", put(taken, device));
    recipe
}

/// QEMU opens the group itself: it wants to open it anew for each container of mappings.
fn by_group(spec: &VfioPciSpec) -> Value {
    let id = spec.id.as_str();
    match spec.function {
        VfioFunction::Pci(bdf) => json!({"driver": "vfio-pci", "id": id, "host": bdf.to_string()}),
        VfioFunction::Mdev(mdev) => {
            json!({"driver": "vfio-pci", "id": id, "sysfsdev": format!("/sys/bus/mdev/devices/{mdev}")})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::recipe::text;
    use crate::plug::testing::{PCI, assert_golden, file, place};

    #[test]
    fn by_group_and_by_iommufd() {
        let function = VfioFunction::Pci("0000:3b:00.1".parse().unwrap());
        let id: vc_types::DeviceId = "gpu0".parse().unwrap();
        let place = place(PCI, 8, 0);
        let group = VfioPciSpec { id: id.clone(), function, handle: VfioHandle::Group(12) };
        assert_golden("vfio-group.txt", &text(&recipe(&group, place)));
        let handle = VfioHandle::Cdev { device: file(), iommufd: file() };
        assert_golden("vfio-iommufd.txt", &text(&recipe(&VfioPciSpec { id, function, handle }, place)));
    }
}
