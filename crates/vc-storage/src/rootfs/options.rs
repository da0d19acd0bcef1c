//! Options that containerd's mount manager reads instead of the kernel: `X-containerd.…`.

use serde::Serialize;

/// What they start with.
const PREFIX: &str = "X-containerd.";

/// A file system to be made in an image before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MakeFilesystem {
    /// Its type: `ext2`, `ext3`, `ext4` or `xfs`.
    pub fs_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its UUID, if one is asked for.
    pub uuid: Option<String>,
}

/// A directory to be made before it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MakeDirectory {
    /// The directory within the file system.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner and group, if they are asked for.
    pub owner: Option<(u32, u32)>,
}

/// Why an option cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOption {
    /// Nobody knows what it means for such a mount.
    #[error("the option {0:?} is not known for a mount of this type")]
    Unknown(String),
    /// Its value is malformed.
    #[error("the option {option:?} is malformed: expected is {expected}")]
    Malformed {
        /// The option.
        option: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An option is missing.
    #[error("the option {0} is missing")]
    Missing(&'static str),
    /// The mount's type has not the prefix that the option needs.
    #[error("the option {option:?} needs the prefix {prefix} in the mount's type")]
    Prefix {
        /// The option.
        option: String,
        /// The prefix.
        prefix: &'static str,
    },
}

/// The options of one mount, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Those for the kernel.
    pub(super) kernel: Vec<String>,
    /// The value of `mkfs.…`.
    pub(super) make: Option<MakeFilesystem>,
    /// The values of `mkdir.path`, whose paths are yet to be placed.
    pub(super) directories: Vec<MakeDirectory>,
    /// The value of `dmverity`.
    pub(super) verity: Option<String>,
}

/// Sorts options, whose templates are expanded.
pub(super) fn sort(options: Vec<String>, mkfs: bool, mkdir: bool) -> Result<Sorted, InvalidOption> {
    let mut sorted = Sorted::default();
    let (mut fs_type, mut size, mut uuid) = (None, None, None);
    for option in options {
        let Some(own) = option.strip_prefix(PREFIX) else {
            sorted.kernel.push(option);
            continue;
        };
        let needs = |given: bool, prefix| {
            if given { Ok(()) } else { Err(InvalidOption::Prefix { option: option.clone(), prefix }) }
        };
        let malformed = |expected| InvalidOption::Malformed { option: option.clone(), expected };
        match own.split_once('=') {
            Some(("mkfs.fs", value)) => {
                needs(mkfs, "mkfs/")?;
                let known = ["ext2", "ext3", "ext4", "xfs"].contains(&value);
                fs_type = Some(
                    known.then(|| value.to_owned()).ok_or_else(|| malformed("ext2, ext3, ext4 or xfs"))?,
                );
            }
            Some(("mkfs.size", value)) => {
                needs(mkfs, "mkfs/")?;
                size = Some(bytes(value).ok_or_else(|| malformed("a size such as 67108864 or 64M"))?);
            }
            Some(("mkfs.uuid", value)) => {
                needs(mkfs, "mkfs/")?;
                uuid = Some(value.to_owned());
            }
            Some(("mkdir.path", value)) => {
                needs(mkdir, "mkdir/")?;
                sorted.directories.push(directory(value).ok_or_else(|| malformed("DIR[:MODE[:UID:GID]]"))?);
            }
            Some(("dmverity", value)) => sorted.verity = Some(value.to_owned()),
            _ => return Err(InvalidOption::Unknown(option)),
        }
    }
    if mkfs {
        let fs_type = fs_type.ok_or(InvalidOption::Missing("X-containerd.mkfs.fs"))?;
        let size = size.ok_or(InvalidOption::Missing("X-containerd.mkfs.size"))?;
        sorted.make = Some(MakeFilesystem { fs_type, size, uuid });
    }
    Ok(sorted)
}

/// Reads `DIR[:MODE[:UID:GID]]`.
fn directory(value: &str) -> Option<MakeDirectory> {
    let parts: Vec<&str> = value.split(':').collect();
    let (path, mode, owner) = match parts[..] {
        [path] => (path, "0755", None),
        [path, mode] => (path, mode, None),
        [path, mode, uid, gid] => (path, mode, Some((uid.parse().ok()?, gid.parse().ok()?))),
        _ => return None,
    };
    let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?;
    Some(MakeDirectory { path: path.to_owned(), mode, owner })
}

/// Reads a size: bytes, or with a unit of 1024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << (10 * power)).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, size) in
            [("67108864", 64 << 20), ("64M", 64 << 20), ("64 MiB", 64 << 20), ("1g", 1 << 30), ("7b", 7)]
        {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "0", "M", "-1", "1x", "1.5G", "99999999999999999999", "99999999T"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn directories_have_a_mode_and_an_owner() {
        let made = |mode, owner| Some(MakeDirectory { path: "/a".into(), mode, owner });
        assert_eq!(directory("/a"), made(0o755, None));
        assert_eq!(directory("/a:0700:1:2"), made(0o700, Some((1, 2))));
        for bad in ["/a:9", "/a:0755:1", "/a:0755:1:x", "/a:77777"] {
            assert_eq!(directory(bad), None, "{bad}");
        }
    }

    #[test]
    fn options_of_containerd_are_known_or_refused() {
        let refused = |option: &str| sort(vec![option.to_owned()], false, false).unwrap_err();
        assert!(matches!(
            refused("X-containerd.mkdir.path=/a"),
            InvalidOption::Prefix { prefix: "mkdir/", .. }
        ));
        assert!(matches!(refused("X-containerd.mkfs.size=1"), InvalidOption::Prefix { prefix: "mkfs/", .. }));
        assert!(matches!(refused("X-containerd.new=1"), InvalidOption::Unknown(_)));
        let missing = sort(vec!["X-containerd.mkfs.fs=ext4".to_owned()], true, false);
        assert!(matches!(missing, Err(InvalidOption::Missing("X-containerd.mkfs.size"))));
    }
}
