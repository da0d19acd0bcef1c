//! Layers: open, checked image files.

use std::fs::File;
use std::sync::Arc;

use vc_types::HostPath;

/// One read-only layer of a root file system: an EROFS image, open and checked.
///
/// The open file is what counts. Its name is kept for messages.
#[derive(Clone, Debug)]
pub struct Layer {
    name: HostPath,
    image: Arc<File>,
}

impl Layer {
    /// What the image was called when it was opened.
    pub fn name(&self) -> &HostPath {
        &self.name
    }

    /// The open image.
    pub fn image(&self) -> &Arc<File> {
        &self.image
    }
}

#[cfg(test)]
impl Layer {
    pub(crate) fn for_test(name: &str) -> Self {
        let image = Arc::new(tempfile::tempfile().unwrap());
        Self { name: HostPath::new(name).unwrap(), image }
    }
}
