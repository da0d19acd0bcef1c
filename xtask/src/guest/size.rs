//! How large a guest image may be: what is in it is read into memory at each start.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The most bytes that `/init` may have, and the initrd when it is compressed.
const LIMITS: [(&str, &str, u64); 2] = [("init", "size", 8_000_000), ("initrd", "compressed_size", 8 << 20)];

/// What of the image in `directory` is larger than it may be.
pub(crate) fn too_large(directory: &Path) -> Result<Vec<String>> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
