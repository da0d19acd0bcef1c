//! The kernel's own file systems.

use super::init::BootError;
use nix::mount::{MsFlags, mount};
use std::fs::create_dir_all;
use std::os::unix::fs::PermissionsExt;

/// File system, mount point, further flags, options. In this order.
const MOUNTS: [(&str, &str, MsFlags, &str); 7] = [
    ("proc", "/proc", MsFlags::MS_NODEV.union(MsFlags::MS_NOEXEC), ""),
    ("sysfs", "/sys", MsFlags::MS_NODEV.union(MsFlags::MS_NOEXEC), ""),
    ("cgroup2", "/sys/fs/cgroup", MsFlags::MS_NODEV.union(MsFlags::MS_NOEXEC), ""),
    ("devpts", "/dev/pts", MsFlags::MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", MsFlags::MS_NODEV, "mode=1777"),
    ("tmpfs", "/run", MsFlags::MS_NODEV, "mode=0755"),
    ("tmpfs", "/tmp", MsFlags::MS_NODEV, "mode=1777"),
];

/// Mounts the device nodes at `/dev`, if they are not there yet: the kernel may have done it.
pub(super) fn mount_dev() {
    let _ = create_dir_all("/dev");
    let _ = mount(Some("devtmpfs"), "/dev", Some("devtmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"));
}

/// Mounts all others, and makes the agent's own directories.
pub(super) fn mount_all() -> Result<(), BootError> {
    for (fs_type, target, flags, options) in MOUNTS {
        let _ = create_dir_all(target);
        mount(Some(fs_type), target, Some(fs_type), flags | MsFlags::MS_NOSUID, Some(options))
            .map_err(|errno| BootError::Mount(target, errno))?;
    }
    for directory in ["/run/vc", "/run/vc/state", "/run/vc/bundles"] {
        create_dir_all(directory)
            .and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)))
            .map_err(|error| BootError::Step("make the agent's directories", error))?;
    }
    // Memory that is plugged is put to use at once, and can be taken away again.
    // Where the kernel cannot, OnlineCPUMem does it.
    let _ = std::fs::write("/sys/devices/system/memory/auto_online_blocks", "online_movable");
    Ok(())
}
