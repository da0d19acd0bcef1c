//! Facts about the host's devices, read below a directory that is handed in.

mod group;
mod pci;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_types::DeviceNumber;

use crate::request::NodeKind;

pub use group::{GroupMember, IommuGroup};
pub use pci::{PciClass, PciFunction};

/// The kernel's device tree: `/sys`, or a copy of a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sysfs {
    root: PathBuf,
}

/// Why a fact could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// The system refused.
    #[error("{path:?} cannot be read")]
    Read {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not say what its kind says.
    #[error("{path:?} holds {text:?}, which is not {expected}")]
    Malformed {
        /// What was read.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What it should hold.
        expected: &'static str,
    },
}

impl Sysfs {
    /// The tree at `root`, which is `/sys` on a host.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The name below `/dev` that the kernel gives a device node: `DEVNAME` of its uevent. `None` when
    /// the kernel does not know the device.
    ///
    /// # Errors
    /// [`SysfsError`] when the uevent has no such line, or a name that leads elsewhere.
    pub fn device_name(&self, kind: NodeKind, number: DeviceNumber) -> Result<Option<String>, SysfsError> {
        let class = match kind {
            NodeKind::Block => "block",
            NodeKind::Character => "char",
            NodeKind::Fifo => return Ok(None),
        };
        let file = format!("dev/{class}/{number}/uevent");
        let Some(uevent) = self.text(&file)? else { return Ok(None) };
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        match name.filter(|name| name.split('/').all(is_plain)) {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(self.malformed(&file, &uevent, "a uevent with DEVNAME")),
        }
    }

    /// The text of a file without its last newline; `None` if there is no such file.
    fn text(&self, file: &str) -> Result<Option<String>, SysfsError> {
        let path = self.root.join(file);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
            }
            // ENODEV: the file is there, the device has gone.
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    /// The last component of what a link points to; `None` if there is no such link.
    fn link_name(&self, link: &str) -> Result<Option<String>, SysfsError> {
        let path = self.root.join(link);
        match std::fs::read_link(&path) {
            Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    /// The names in a directory, sorted; `None` if there is no such directory.
    fn names(&self, directory: &str) -> Result<Option<Vec<String>>, SysfsError> {
        let path = self.root.join(directory);
        let list = || -> io::Result<Vec<String>> {
            let name = |entry: io::Result<std::fs::DirEntry>| Ok(lossy(&entry?.file_name()));
            std::fs::read_dir(&path)?.map(name).collect()
        };
        match list() {
            Ok(mut names) => {
                names.sort();
                Ok(Some(names))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(SysfsError::Read { path, source }),
        }
    }

    fn exists(&self, file: &str) -> bool {
        self.root.join(file).exists()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    fn malformed(&self, file: &str, text: &str, expected: &'static str) -> SysfsError {
        SysfsError::Malformed { path: self.root.join(file), text: text.to_owned(), expected }
    }
}

fn lossy(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn is_absent(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(ENODEV)
}

/// Length of a file, 0 if it is not there.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
