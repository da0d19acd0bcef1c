//! RAFS images, and the programs that make and serve them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip;

/// The programs of nydus.
#[derive(Debug)]
pub struct Nydus {
    /// Serves images.
    pub nydusd: PathBuf,
    /// Makes them.
    image: PathBuf,
}

/// An image.
#[derive(Clone, Debug)]
pub struct Rafs {
    /// Its metadata.
    pub bootstrap: PathBuf,
    /// What nydusd is told of it: where its data is.
    pub config: String,
}

impl Nydus {
    /// The programs that `VC_NYDUSD` and `VC_NYDUS_IMAGE` name, or the first in `PATH`; prints why a test that needs
    /// them does not apply.
    pub fn find() -> Option<Self> {
        let program = |variable: &str, name: &str| {
            let named = std::env::var_os(variable).map(PathBuf::from);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut in_path = std::env::split_paths(&path).map(|directory| directory.join(name));
            let found = named.or_else(|| in_path.find(|program| program.is_file()));
            if found.is_none() {
                skip(&format!("no {name} in PATH, nor in {variable}; `cargo xtask nydus` builds one"));
            }
            found
        };
        Some(Self {
            nydusd: program("VC_NYDUSD", "nydusd")?,
            image: program("VC_NYDUS_IMAGE", "nydus-image")?,
        })
    }

    /// Makes an image of `tree`, and what belongs to it, in the new directory `dir`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn image(&self, tree: &Path, dir: &Path) -> Rafs {
        let [data, cache] = ["data", "cache"].map(|name| dir.join(name));
        for made in [dir, &data, &cache] {
            fs::create_dir(made).expect("a new directory");
        }
        let bootstrap = dir.join("bootstrap");
        let mut create = Command::new(&self.image);
        create.args(["create", "--log-level", "error", "--bootstrap"]).arg(&bootstrap);
        let made = create.arg("--blob-dir").arg(&data).arg(tree).output().expect("nydus-image runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = format!(
            r#"{{"device": {{
                "backend": {{"type": "localfs", "config": {{"dir": {data:?}}}}},
                "cache": {{"type": "blobcache", "config": {{"work_dir": {cache:?}}}}}
            }}, "mode": "direct", "digest_validate": false, "enable_xattr": true}}"#
        );
        Rafs { bootstrap, config }
    }
}
