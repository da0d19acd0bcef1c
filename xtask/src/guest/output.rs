//! The finished image: three files, and how they come to the disk.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::modules::Module;
use super::source::{Kernel, Source};
use super::stamp::Stamp;
use super::{init, initrd, lz4};

/// The names of the image's files, in the order of [`Output`]'s fields.
pub(super) const FILES: [&str; 3] = ["vmlinux", "initrd", "manifest.json"];

/// The three files of an image.
#[derive(Debug)]
pub(super) struct Output {
    vmlinux: Vec<u8>,
    initrd: Vec<u8>,
    manifest: Vec<u8>,
}

impl Output {
    /// Makes the image; the same inputs give the same bytes.
    ///
    /// Compressing makes the initrd half as large, and a start under emulation about 90 ms longer.
    pub(super) fn make(source: &Source, init: &Path, compress: bool) -> Result<Self> {
        println!("guest: unpacking the kernel");
        let kernel = source.read()?;
        println!("guest: kernel {}, {} modules", kernel.release, kernel.modules.modules.len());
        let init_data = fs::read(init).with_context(|| format!("cannot read {}", init.display()))?;
        ensure!(init::is_static(&init_data)?, "{} is not static, so it cannot be /init", init.display());
        let archive = initrd::pack(&init_data, &kernel.modules)?;
        let compressed = lz4::compress(&archive)?;
        let compressed_size = compressed.len();
        let initrd = if compress { compressed } else { archive };
        let mut manifest = manifest(&kernel, &init_data, &initrd);
        manifest["initrd"]["compressed_size"] = json!(compressed_size);
        let manifest = serde_json::to_vec_pretty(&manifest)?;
        for (name, data) in [("vmlinux", &kernel.vmlinux), ("initrd", &initrd)] {
            println!("guest: {name} {:.1} MiB", mebibytes(data.len()));
        }
        Ok(Self { vmlinux: kernel.vmlinux, initrd, manifest })
    }

    /// Replaces the image in `directory`; a run that ends in between leaves no stamp, so the next one starts anew.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        Stamp::take_off(directory)?;
        for (name, data) in FILES.iter().zip([&self.vmlinux, &self.initrd, &self.manifest]) {
            let path = directory.join(name);
            // A QEMU that has the old file open keeps it whole.
            let new = directory.join(format!(".{name}.new"));
            fs::write(&new, data).with_context(|| format!("cannot write {}", new.display()))?;
            fs::rename(&new, &path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        Ok(())
    }
}

/// The most bytes that `/init` may have, and the initrd when it is compressed: both are read into memory at each start.
const LIMITS: [(&str, &str, u64); 2] = [("init", "size", 8_000_000), ("initrd", "compressed_size", 8 << 20)];

/// What of the image in `directory` is larger than it may be.
pub(super) fn too_large(directory: &Path) -> Result<Vec<String>> {
    let path = directory.join("manifest.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Value = serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?;
    Ok(LIMITS.iter().filter_map(|limit| complaint(&manifest, limit)).collect())
}

fn complaint(manifest: &Value, (file, key, most): &(&str, &str, u64)) -> Option<String> {
    let size = manifest[file][key].as_u64();
    size.is_none_or(|size| size > *most)
        .then(|| format!("{file} has a {key} of {size:?} bytes, more than {most}"))
}

/// The SHA-256 of `data` in hexadecimal digits.
pub(super) fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn manifest(kernel: &Kernel, init: &[u8], initrd: &[u8]) -> Value {
    let file = |data: &[u8]| json!({ "size": data.len(), "sha256": sha256(data) });
    let module =
        |module: &Module| json!({ "name": module.name, "boot": module.boot, "size": module.data.len() });
    json!({
        "format": 1,
        "vc_version": env!("CARGO_PKG_VERSION"),
        "kernel": { "release": kernel.release, "origin": kernel.origin },
        "vmlinux": file(&kernel.vmlinux),
        "initrd": file(initrd),
        "init": file(init),
        "modules": kernel.modules.modules.iter().map(module).collect::<Vec<_>>(),
        "modules_built_in": kernel.modules.built_in,
        "modules_absent": kernel.modules.absent,
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_told_and_so_is_what_nobody_measured() {
        let manifest = |init: u64, initrd: u64| json!({ "init": { "size": init }, "initrd": { "compressed_size": initrd } });
        let complaints =
            |manifest: &Value| LIMITS.iter().filter_map(|limit| complaint(manifest, limit)).count();
        assert_eq!(complaints(&manifest(8_000_000, 8 << 20)), 0);
        assert_eq!(complaints(&manifest(8_000_001, 8 << 20)), 1);
        assert_eq!(complaints(&manifest(1, (8 << 20) + 1)), 1);
        assert_eq!(complaints(&json!({})), 2);
    }
}
