//! Persistent memory: a file mapped into the guest. Sources: QEMU's `docs/nvdimm.txt` and
//! `docs/system/devices/virtio-pmem.rst`.

use serde_json::json;
use vc_device::{Access, PmemFrontend, PmemSpec};

use crate::devices::Taken;

use super::place::{given, put};
use super::recipe::{Command, Recipe, backend};

/// How to plug persistent memory from a file that QEMU has open as the descriptor `fd`, since it maps
/// nothing out of a descriptor set.
pub(crate) fn recipe(spec: &PmemSpec, taken: Taken, fd: i64) -> Recipe {
    let mut recipe = Recipe::default();
    let read_only = spec.access() == Access::ReadOnly;
    let memory = backend(spec.id());
    let object = format!("mem-{memory}");
    let add = json!({
        "qom-type": "memory-backend-file",
        "id": object,
        "mem-path": format!("/proc/self/fd/{fd}"),
        "size": spec.size(),
        // What the guest writes is to reach the file.
        "share": !read_only,
        "readonly": read_only,
    });
    let delete = Command::new("object-del", json!({"id": object}));
    recipe.make("map the image", Command::new("object-add", add), delete);
    let id = spec.id().as_str();
    let device = match spec.frontend() {
        PmemFrontend::Nvdimm => json!({
            "driver": "nvdimm",
            "id": id,
            "memdev": object,
            "unarmed": read_only.then_some(true),
        }),
        PmemFrontend::VirtioPmem => json!({"driver": "virtio-pmem-pci", "id": id, "memdev": object}),
    };
    recipe.device("add the memory", put(taken, given(device)));
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Wanted;
    use crate::plug::recipe::text;
    use crate::plug::testing::{assert_golden, file, name, place};

    fn lines(access: Access, frontend: PmemFrontend, wanted: Wanted) -> String {
        let id = "pm0".parse().unwrap();
        let spec = PmemSpec::new(id, (file(), name()), 4 << 20, access, frontend).unwrap();
        text(&recipe(&spec, place(wanted, 8, 0), 21))
    }

    #[test]
    fn on_a_port_and_in_a_memory_slot() {
        let virtio = lines(Access::ReadWrite, PmemFrontend::VirtioPmem, Wanted::PmemPort);
        assert_golden("virtio-pmem.txt", &virtio);
        let nvdimm = lines(Access::ReadOnly, PmemFrontend::Nvdimm, Wanted::PmemSlot);
        assert_golden("nvdimm.txt", &nvdimm);
    }
}
