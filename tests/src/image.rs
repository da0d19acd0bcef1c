//! The guest image that `cargo xtask guest` builds.

use std::path::{Path, PathBuf};

use crate::skip;

/// Kernel and initial RAM disk of the default guest.
#[derive(Clone, Debug)]
pub struct GuestImage {
    /// The directory with both.
    pub dir: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

impl GuestImage {
    /// The image that `VC_GUEST` names, or else the one in the target directory that this test was built into.
    ///
    /// # Panics
    /// When it is missing where it must not be: `cargo xtask test` and CI set `VC_TEST_VM=required`.
    pub fn find() -> Option<Self> {
        let dir = std::env::var_os("VC_GUEST").map_or_else(|| target_dir().join("guest"), PathBuf::from);
        let image = Self { kernel: dir.join("vmlinux"), initrd: dir.join("initrd"), dir };
        if image.kernel.exists() && image.initrd.exists() {
            return Some(image);
        }
        let reason = format!("no guest image in {}; build it with `cargo xtask guest`", image.dir.display());
        assert!(std::env::var_os("VC_TEST_VM").is_none_or(|value| value != "required"), "{reason}");
        skip(&reason);
        None
    }
}

/// The target directory: tests run from `<target>/<profile>/deps`.
fn target_dir() -> PathBuf {
    let program = std::env::current_exe().expect("a running program has a path");
    program.ancestors().nth(3).map(Path::to_path_buf).expect("tests run below the target directory")
}
