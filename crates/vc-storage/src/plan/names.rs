//! Paths and names in the guest. Kata's agent has the same, so that either agent can be driven.

use vc_device::DeviceIdentity;
use vc_types::{ContainerId, GuestPath};

use crate::volume::SharedFs;

/// Below it the agent keeps what belongs to one container.
const CONTAINERS: &str = "/run/kata-containers";

/// Below it layers are mounted.
const LAYERS: &str = "/run/kata-containers/virtual-volumes";

/// Below it volumes are mounted that all containers of a sandbox may use.
const VOLUMES: &str = "/run/kata-containers/sandbox/storage";

/// Below it memory is mounted that all containers of a sandbox may use.
const EPHEMERAL: &str = "/run/kata-containers/sandbox/ephemeral";

/// Below it are directories of the guest that all containers of a sandbox may use.
const LOCAL: &str = "/run/kata-containers/sandbox/local";

/// What is shared.
const SHARED: &str = "/run/kata-containers/shared/containers";

/// The directory that nydusd serves: what is shared, and the images beside it.
const SERVED_BY_NYDUSD: &str = "/run/kata-containers/shared";

/// The directory for the guest's copies of what is watched, in the shared one.
pub const WATCHABLE: &str = "watchable";

pub(super) fn container(id: &ContainerId) -> GuestPath {
    below(CONTAINERS, id.as_str())
}

pub(super) fn rootfs(id: &ContainerId) -> GuestPath {
    child(&container(id), "rootfs")
}

/// Layer `index` of a container's root.
pub(super) fn layer(id: &ContainerId, index: usize) -> GuestPath {
    below(LAYERS, &format!("{id}-{index}"))
}

/// Where the guest has a volume, by its device: two containers that use one device mount it once.
pub fn volume(device: &DeviceIdentity) -> GuestPath {
    let name = match device {
        DeviceIdentity::Block(number) => format!("block-{}-{}", number.major(), number.minor()),
        DeviceIdentity::File(file) => {
            format!("file-{}-{}-{}", file.device.major(), file.device.minor(), file.inode)
        }
        // Other kinds are no volumes; a name all the same.
        other => plain(&other.to_string()),
    };
    below(VOLUMES, &name)
}

pub(super) fn ephemeral(name: &str) -> GuestPath {
    below(EPHEMERAL, &plain(name))
}

pub(super) fn local(name: &str) -> GuestPath {
    below(LOCAL, &plain(name))
}

/// The name in the shared directory of what a container has at `destination`.
pub(super) fn share(id: &ContainerId, index: usize, destination: &str) -> String {
    let last = destination.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default();
    format!("{id}-{index}-{}", plain(last))
}

/// Where the guest mounts what is served.
pub(super) fn served(shared_fs: SharedFs) -> GuestPath {
    let at = if shared_fs == SharedFs::Nydus { SERVED_BY_NYDUSD } else { SHARED };
    GuestPath::new(at).expect("an absolute path")
}

/// Where the guest has an image that nydusd mounts for a container, which it calls `/rafs/ID/lowerdir`, or with a
/// number behind it.
pub(super) fn rafs(id: &ContainerId, number: u32) -> GuestPath {
    child(&child(&below(SERVED_BY_NYDUSD, "rafs"), id.as_str()), &numbered("lowerdir", number))
}

/// The name in the shared directory of the snapshot that goes with it.
pub(super) fn snapshot(id: &ContainerId, number: u32) -> String {
    numbered(&format!("{id}-snapshotdir"), number)
}

/// The name of the container of this number in its sandbox.
pub(super) fn numbered(name: &str, number: u32) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}-{number}") }
}

pub(super) fn shared(name: &str) -> GuestPath {
    below(SHARED, name)
}

pub(super) fn watchable(name: &str) -> GuestPath {
    child(&shared(WATCHABLE), name)
}

/// A path that was checked when it was read: `directory` has no `..`.
pub(super) fn within(base: &GuestPath, directory: &str) -> GuestPath {
    let names = directory.split('/').filter(|name| !name.is_empty());
    names.fold(base.clone(), |path, name| child(&path, &plain(name)))
}

pub(super) fn child(parent: &GuestPath, name: &str) -> GuestPath {
    parent.join(name).expect("a plain name")
}

fn below(parent: &str, name: &str) -> GuestPath {
    GuestPath::new(parent).map(|parent| child(&parent, name)).expect("an absolute path")
}

/// Text as one plain file name of at most 64 bytes. Names that differ may become the same, so whoever needs
/// them apart puts a number before.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+@=".contains(c);
    let name: String = text.chars().take(64).map(|c| if is_plain(c) { c } else { '_' }).collect();
    match name.as_str() {
        "" | "." | ".." => "_".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_component() {
        let id: ContainerId = "web".parse().unwrap();
        for (destination, name) in [
            ("/data", "web-3-data"),
            ("/etc/hosts", "web-3-hosts"),
            ("/a b/", "web-3-a_b"),
            ("/", "web-3-_"),
            ("/x/..", "web-3-_"),
            ("/\u{e4}\n", "web-3-__"),
        ] {
            assert_eq!(share(&id, 3, destination), name);
            shared(name);
        }
        assert!(share(&id, 0, &"x".repeat(300)).len() < 255);
    }
}
