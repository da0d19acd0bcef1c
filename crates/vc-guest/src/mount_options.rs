//! Mount options as text: flags for mount(2), and what is left for the file system.

use nix::mount::MsFlags;

/// Options of one mount, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The flags of mount(2).
    pub flags: MsFlags,
    /// How mounts below are passed on, which is set by a call of its own (mount(2), "Changing the
    /// propagation type").
    pub propagation: MsFlags,
    /// The options that the file system itself understands, separated by commas.
    pub data: String,
}

impl MountOptions {
    /// Parses options as mount(8) takes them; a later option overrides an earlier one.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut flags, mut propagation) = (MsFlags::empty(), MsFlags::empty());
        let mut data = Vec::new();
        for option in options.into_iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()) {
            if let Some(kind) = propagation_kind(option) {
                propagation = kind;
                continue;
            }
            match flag(option) {
                Some((flag, true)) => flags.insert(flag),
                Some((flag, false)) => flags.remove(flag),
                None => data.push(option),
            }
        }
        Self { flags, propagation, data: data.join(",") }
    }
}

fn propagation_kind(option: &str) -> Option<MsFlags> {
    let (kind, recursive) = match option.strip_prefix('r') {
        Some(kind) => (kind, MsFlags::MS_REC),
        None => (option, MsFlags::empty()),
    };
    let kind = match kind {
        "private" => MsFlags::MS_PRIVATE,
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// The flag of mount(2) that `option` sets (true) or clears (false).
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "defaults" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flags_and_data_are_told_apart_and_the_last_one_counts() {
        let cases: [(&[&str], MsFlags, &str); 5] = [
            (&[], MsFlags::empty(), ""),
            (&["ro"], MsFlags::MS_RDONLY, ""),
            (&["ro", "rw"], MsFlags::empty(), ""),
            (&["size=64m,mode=1777", "nosuid"], MsFlags::MS_NOSUID, "size=64m,mode=1777"),
            (&["lowerdir=/a:/b", "upperdir=/u"], MsFlags::empty(), "lowerdir=/a:/b,upperdir=/u"),
        ];
        for (options, flags, data) in cases {
            let want = MountOptions { flags, propagation: MsFlags::empty(), data: data.to_owned() };
            assert_eq!(MountOptions::parse(options.iter().copied()), want, "{options:?}");
        }
        let bound = MountOptions::parse(["rbind", "rslave"]);
        assert_eq!(bound.propagation, MsFlags::MS_SLAVE | MsFlags::MS_REC);
        assert_eq!((bound.flags, bound.data.as_str()), (MsFlags::MS_BIND | MsFlags::MS_REC, ""));
    }

    proptest! {
        #[test]
        fn nothing_unknown_is_dropped(options in prop::collection::vec("[a-z]{1,3}=[a-z0-9]{0,3}", 0..8)) {
            let parsed = MountOptions::parse(options.iter().map(String::as_str));
            prop_assert_eq!(parsed.data, options.join(","));
            prop_assert!(parsed.flags.is_empty());
        }
    }
}
