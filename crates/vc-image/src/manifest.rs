//! What an image tells about itself: where its kernel comes from, and what is in it.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::kernel::Kernel;
use crate::modules::Module;

/// The SHA-256 of `data` in hexadecimal digits.
pub fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest, as text. `compressed_size` is what the initrd has or would have when it is compressed.
pub(crate) fn manifest(kernel: &Kernel, init: &[u8], initrd: &[u8], compressed_size: usize) -> Vec<u8> {
    let file = |data: &[u8]| json!({ "size": data.len(), "sha256": sha256(data) });
    let module =
        |module: &Module| json!({ "name": module.name, "boot": module.boot, "size": module.data.len() });
    let mut manifest = json!({
        "format": 1,
        "vc_version": env!("CARGO_PKG_VERSION"),
        "kernel": { "release": kernel.release, "origin": kernel.origin },
        "vmlinux": file(&kernel.vmlinux),
        "initrd": file(initrd),
        "init": file(init),
        "modules": kernel.modules.modules.iter().map(module).collect::<Vec<_>>(),
        "modules_built_in": kernel.modules.built_in,
        "modules_absent": kernel.modules.absent,
    });
    manifest["initrd"]["compressed_size"] = json!(compressed_size);
    format!("{manifest:#}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_written_as_sha256sum_writes_it() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
