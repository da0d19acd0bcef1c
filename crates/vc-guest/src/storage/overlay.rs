//! Overlays: which layers they stand on, and mounting many of them.

use super::error::StorageError;
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use vc_types::GuestPath;

/// An overlay that does not stand on the layers of its request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerdirError {
    /// A lower directory that no storage of the request mounts.
    #[error("the overlay's layer {0:?} is neither a storage of the same request nor in a share")]
    NotMounted(String),
    /// An overlay without layers.
    #[error("the overlay has no lowerdir option")]
    None,
}

/// The directories of the `lowerdir` option, topmost first. `\:` stands for a colon within a path,
/// and `\\` for a backslash (the kernel's overlayfs.rst).
pub fn lowerdirs(options: &[String]) -> Vec<String> {
    let mut directories = Vec::new();
    for list in options.iter().filter_map(|option| option.strip_prefix("lowerdir=")) {
        let mut directory = String::new();
        let mut letters = list.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => directory.extend(letters.next()),
                ':' => directories.push(std::mem::take(&mut directory)),
                other => directory.push(other),
            }
        }
        directories.push(directory);
    }
    directories
}

/// Checks that every lower directory is one of `mounted`, the mount points of the same request, or is
/// below one of `shares`, which are the host's: a layer that is missing, or a name that leads elsewhere,
/// would give a container other than the one asked for.
///
/// # Errors
/// [`LowerdirError`] names the directory.
pub fn check_lowerdirs(
    options: &[String],
    mounted: &BTreeSet<&GuestPath>,
    shares: &BTreeSet<&GuestPath>,
) -> Result<(), LowerdirError> {
    let directories = lowerdirs(options);
    if directories.is_empty() {
        return Err(LowerdirError::None);
    }
    for directory in directories {
        let is_known = GuestPath::new(&directory).is_ok_and(|path| {
            let is_below = |share: &&GuestPath| Path::new(path.as_str()).starts_with(share.as_str());
            mounted.contains(&path) || shares.iter().any(is_below)
        });
        if !is_known {
            return Err(LowerdirError::NotMounted(directory));
        }
    }
    Ok(())
}

/// The most bytes of options that mount(2) takes: one page, ended by NUL.
const MAX_OPTIONS: usize = 4095;

/// Whether mount(2) takes these options as they are. Thirty layers with long names are too many.
pub(super) fn fits(options: &[String]) -> bool {
    options.iter().map(|option| option.len() + 1).sum::<usize>() <= MAX_OPTIONS
}

/// The options of an overlay with its layers named by short links, which are gone when this is dropped.
///
/// The kernel follows the links when it mounts; they may go afterwards.
#[derive(Debug)]
pub(super) struct ShortNames {
    directory: PathBuf,
    pub(super) options: Vec<String>,
}

impl ShortNames {
    pub(super) fn new(options: &[String]) -> Result<Self, StorageError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let directory = PathBuf::from(format!("/run/o{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let failed = |error| StorageError::Make(directory.clone(), error);
        std::fs::create_dir(&directory).map_err(failed)?;
        let mut names = Self { directory: directory.clone(), options: Vec::new() };
        names.options = with_short_names(options, &directory).map_err(failed)?;
        Ok(names)
    }
}

impl Drop for ShortNames {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = ?self.directory, %error, "cannot remove");
        }
    }
}

fn with_short_names(options: &[String], directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for (index, lower) in lowerdirs(options).iter().enumerate() {
        let link = directory.join(index.to_string());
        symlink(lower, &link)?;
        names.push(link.display().to_string());
    }
    let others = options.iter().filter(|option| !option.starts_with("lowerdir="));
    Ok(others.cloned().chain([format!("lowerdir={}", names.join(":"))]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(lowerdir: &str) -> Vec<String> {
        vec!["upperdir=/run/u".to_owned(), format!("lowerdir={lowerdir}"), "workdir=/run/w".to_owned()]
    }

    #[test]
    fn every_layer_must_be_of_the_request() {
        let layers = ["/run/a", "/run/b"].map(|path| GuestPath::new(path).unwrap());
        let mounted = layers.iter().collect();
        let share = GuestPath::new("/run/share").unwrap();
        let (shares, none) = (BTreeSet::from([&share]), BTreeSet::new());
        assert_eq!(check_lowerdirs(&options("/run/b:/run/a"), &mounted, &none), Ok(()));
        assert_eq!(check_lowerdirs(&options("/run/share/x/y:/run/a"), &mounted, &shares), Ok(()));
        assert_eq!(check_lowerdirs(&[], &mounted, &none), Err(LowerdirError::None));
        for bad in ["/run/c", "/run/a/sub", "/run/a/../b", "run/a", "", "/run/shared", "/run/share/../b"] {
            let error = LowerdirError::NotMounted(bad.to_owned());
            assert_eq!(check_lowerdirs(&options(&format!("/run/a:{bad}")), &mounted, &shares), Err(error));
        }
    }

    #[test]
    fn short_names_keep_the_order() {
        let directory = tempfile::tempdir().unwrap();
        let short = with_short_names(&options("/l/top:/l/mid\\:dle:/l/bottom"), directory.path()).unwrap();
        assert_eq!(short[..2], ["upperdir=/run/u", "workdir=/run/w"]);
        let targets: Vec<_> =
            lowerdirs(&short).iter().map(|link| std::fs::read_link(link).unwrap()).collect();
        assert_eq!(targets, ["/l/top", "/l/mid:dle", "/l/bottom"].map(std::path::PathBuf::from));
    }

    #[test]
    fn one_page_of_options_fits() {
        // Each option is followed by a comma, and the last one by NUL.
        assert!(fits(&["x".repeat(2000), "y".repeat(2093)]));
        assert!(!fits(&["x".repeat(2000), "y".repeat(2094)]));
    }

    proptest! {
        #[test]
        fn escaped_names_come_back(names in prop::collection::vec("[a:\\\\/]{1,6}", 1..5)) {
            let escaped: Vec<_> =
                names.iter().map(|name| name.replace('\\', "\\\\").replace(':', "\\:")).collect();
            prop_assert_eq!(lowerdirs(&options(&escaped.join(":"))), names);
        }
    }
}
