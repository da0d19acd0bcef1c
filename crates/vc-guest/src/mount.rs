//! Mounting and unmounting.

use crate::modules::ModuleLoader;
use crate::mount_options::MountOptions;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};

/// A mount to be made.
#[derive(Clone, Debug)]
pub(crate) struct Mount<'a> {
    pub(crate) source: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) fs_type: &'a str,
    pub(crate) options: MountOptions,
}

impl Mount<'_> {
    /// Makes the mount. When the kernel does not know the file system, loads the module of its name
    /// and tries again.
    ///
    /// # Errors
    /// The error of mount(2).
    pub(crate) fn make(&self, modules: &ModuleLoader) -> Result<(), Errno> {
        match self.call() {
            Err(Errno::ENODEV) if modules.load(self.fs_type, "").is_ok() => self.call(),
            result => result,
        }
    }

    /// Whether it is another place of what is mounted already.
    pub(crate) fn is_bind(&self) -> bool {
        self.options.flags.contains(MsFlags::MS_BIND)
    }

    fn call(&self) -> Result<(), Errno> {
        let MountOptions { flags, propagation, data } = &self.options;
        let data = (!data.is_empty()).then_some(data.as_str());
        mount(Some(self.source), self.target, Some(self.fs_type), *flags, data)?;
        let none: Option<&str> = None;
        let restrictions = *flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
        let restricted = if self.is_bind() && !restrictions.is_empty() {
            // A bind mount takes its own flags only when it is mounted again (mount(2)).
            let flags = restrictions | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            mount(none, self.target, none, flags, none)
        } else {
            Ok(())
        };
        let completed = restricted.and_then(|()| match propagation.is_empty() {
            true => Ok(()),
            false => mount(none, self.target, none, *propagation, none),
        });
        // Half of a mount is none: a bind mount that was to be read-only must not stay writable.
        completed.inspect_err(|_| {
            if let Err(error) = unmount(self.target) {
                tracing::warn!(target = ?self.target, %error, "undo failed");
            }
        })
    }
}

/// Unmounts the topmost mount at `target`. What is still in use is detached, and goes away once its
/// last user has.
///
/// # Errors
/// The error of umount2(2); a target that is no mount point is `EINVAL`.
pub(crate) fn unmount(target: &Path) -> Result<(), Errno> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => {
            tracing::warn!(?target, "still in use, detached");
            umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
        }
        result => result,
    }
}

/// Looks at every mount of a share of the host. What the host has removed meanwhile is noticed then, and the
/// host's daemon can close it.
pub(crate) fn look_at_shares() {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for target in mount_points_of(&table, "virtiofs") {
        if let Err(error) = std::fs::symlink_metadata(&target) {
            tracing::info!(?target, %error, "gone on the host");
        }
    }
}

/// The mount points of one file system: its type stands behind the separator ` - ` (proc_pid_mountinfo(5)).
fn mount_points_of(mountinfo: &[u8], fs_type: &str) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let of_type = lines.filter(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip_while(|field| *field != b"-");
        fields.nth(1) == Some(fs_type.as_bytes())
    });
    of_type.flat_map(|line| mount_points_below(line, Path::new("/"))).collect()
}

/// Unmounts everything at and below `directory`, innermost first.
///
/// # Errors
/// The first mount point that stays, and why.
pub(crate) fn unmount_below(directory: &Path) -> Result<(), (PathBuf, Errno)> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    for target in mount_points_below(&table, directory) {
        unmount(&target).map_err(|error| (target, error))?;
    }
    Ok(())
}

/// The mount points at and below `directory`, the latest mount first: a mount is always listed after
/// the one it stands on (proc_pid_mountinfo(5)).
pub(crate) fn mount_points_below(mountinfo: &[u8], directory: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mount_point = |line: &[u8]| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
    };
    let points = mountinfo.split(|byte| *byte == b'\n').filter_map(mount_point);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    points.reverse();
    points
}

/// Decodes the octal escapes of mountinfo, such as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_one_file_system_are_told_from_others() {
        let table = b"30 22 0:30 / /run/s\\040hare rw shared:1 - virtiofs kataShared rw\n\
            31 30 0:31 / /virtiofs rw - tmpfs virtiofs rw\n\
            32 30 0:32 /x /run/share/x rw - virtiofs kataShared rw\n";
        let points = mount_points_of(table, "virtiofs");
        assert_eq!(points, ["/run/s hare", "/run/share/x"].map(PathBuf::from));
    }

    #[test]
    fn innermost_mounts_come_first_and_neighbours_stay() {
        let table = b"22 1 0:2 / / rw - tmpfs tmpfs rw\n\
            30 22 0:30 / /run/c/a rw - tmpfs t rw\n\
            31 30 0:31 / /run/c/a/in\\040side rw - tmpfs t rw\n\
            32 22 0:32 / /run/c/ab rw - tmpfs t rw\n\
            33 30 0:33 / /run/c/a rw - overlay o rw\n";
        let points = mount_points_below(table, Path::new("/run/c/a"));
        assert_eq!(points, ["/run/c/a", "/run/c/a/in side", "/run/c/a"].map(PathBuf::from));
        assert!(mount_points_below(table, Path::new("/run/d")).is_empty());
        assert!(mount_points_below(b"junk\n\n1 2\n", Path::new("/")).is_empty());
    }
}
