//! The device nodes of VFIO.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A device node of VFIO, known by its path.
///
/// A path only says where to look: `/dev/vfio/12` and `/dev/vfio/devices/vfio3` may be the same device,
/// whose identity is its PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfioPath {
    /// `/dev/vfio/vfio`, by which groups are opened.
    Control,
    /// `/dev/vfio/NUMBER`: an IOMMU group.
    Group(u32),
    /// `/dev/vfio/devices/vfioNUMBER`: one device.
    Cdev(u32),
}

impl VfioPath {
    /// What `path` is, if it is a node of VFIO.
    pub fn parse(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/dev/vfio/")?;
        if name == "vfio" {
            return Some(Self::Control);
        }
        let cdev = name.strip_prefix("devices/vfio").and_then(decimal).map(Self::Cdev);
        cdev.or_else(|| decimal(name).map(Self::Group))
    }

    /// The number in its name; the control device has none.
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Control => None,
            Self::Group(number) | Self::Cdev(number) => Some(number),
        }
    }
}

impl fmt::Display for VfioPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("/dev/vfio/vfio"),
            Self::Group(number) => write!(f, "/dev/vfio/{number}"),
            Self::Cdev(number) => write!(f, "/dev/vfio/devices/vfio{number}"),
        }
    }
}

/// A number as the kernel writes it: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vfio_nodes_are_known_by_their_path() {
        for (path, node) in [
            ("/dev/vfio/vfio", VfioPath::Control),
            ("/dev/vfio/16", VfioPath::Group(16)),
            ("/dev/vfio/1", VfioPath::Group(1)),
            ("/dev/vfio/devices/vfio5", VfioPath::Cdev(5)),
        ] {
            assert_eq!(VfioPath::parse(path), Some(node));
            assert_eq!(node.to_string(), path);
        }
        let others = [
            "",
            "/dev",
            "/dev/vf",
            "/dev/vfio",
            "/dev/vfio/",
            "/dev/vfio/vfio/12",
            "/dev/vfio/+1",
            "/dev/vfio/01",
            "/dev/vfio/4294967296",
            "/dev/vfio/devices/",
            "/dev/vfio/devices/vfio",
            "/dev/vfio/vfio5",
            "/dev/vfio/noiommu-0",
            "/x/dev/vfio/1",
        ];
        for other in others {
            assert_eq!(VfioPath::parse(other), None, "{other}");
        }
    }
}
