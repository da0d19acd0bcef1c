//! The name of layer images, as containerd's EROFS snapshotter gives it.

use std::path::{Path, PathBuf};

/// A layer's image has another name than the snapshotter gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported mount source {} for {}", file.display(), directory.display())]
pub struct UnsupportedSource {
    /// The image file.
    pub file: PathBuf,
    /// Where it is mounted.
    pub directory: PathBuf,
}

/// Checks that the image behind `directory` has the name `layer.erofs`.
///
/// This is a policy of those who take layers from containerd alone, and proves nothing of the image: any
/// file can have that name, and a merged `fsmeta.erofs` is no layer.
///
/// # Errors
/// [`UnsupportedSource`] when `file` has another name.
pub fn check_layer_name(file: &Path, directory: &Path) -> Result<(), UnsupportedSource> {
    const NAME: &str = "layer.erofs";
    match file.file_name() {
        Some(name) if name == NAME => Ok(()),
        _ => Err(UnsupportedSource { file: file.into(), directory: directory.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_base_name_counts() {
        let at = Path::new("/snapshots/1/fs");
        for good in ["/snapshots/1/layer.erofs", "layer.erofs"] {
            assert_eq!(check_layer_name(Path::new(good), at), Ok(()));
        }
        for bad in ["/s/fsmeta.erofs", "/s/layer.erofs.bak", "/s/xlayer.erofs", "/s/layer.erofs/..", "/"] {
            assert!(check_layer_name(Path::new(bad), at).is_err(), "{bad}");
        }
        let error = check_layer_name(Path::new("/dev/sda1"), at).unwrap_err();
        assert_eq!(error.to_string(), "unsupported mount source /dev/sda1 for /snapshots/1/fs");
    }
}
