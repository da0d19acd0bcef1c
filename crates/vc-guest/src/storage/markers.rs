//! The options by which Kata's runtime describes the layers of a root file system, `X-kata.*`, and one of our own
//! for what it has no words for.
//!
//! They are no mount options: the kernel never sees them.

use super::request::InvalidStorage;
use super::verity::VerityOptions;
use std::num::NonZeroU32;
use vc_types::GuestPath;

/// What the markers of one storage say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Markers {
    /// This storage and its neighbours are layers of one overlay.
    pub(super) multi_layer: bool,
    /// The writable layer, rather than one of those below it.
    pub(super) is_upper: bool,
    /// A layer below the writable one.
    pub(super) is_lower: bool,
    /// The partition of the device that has the layer.
    pub(super) partition: Option<NonZeroU32>,
    /// Directories to be made in the writable layer.
    pub(super) directories: Vec<NewDirectory>,
    /// The partitions of the same device that have the data of an EROFS image with metadata only, in the order of
    /// its device table.
    pub(super) blobs: Vec<NonZeroU32>,
    /// How the layer's bytes are verified.
    pub(super) verity: Option<VerityOptions>,
}

/// A directory to be made in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDirectory {
    /// Where, seen from the layer's root.
    pub path: GuestPath,
    /// Its permissions.
    pub mode: u32,
}

const PREFIX: &str = "X-kata.";

/// A partition with data of the layer. Kata's agent has no such option, and its kernel refuses it; that this one has it
/// is told by GetGuestDetails.
const BLOB: &str = "X-vc.blob-partition=";

/// The mount that a directory is made in: the writable layer, which is the first one.
const FIRST_MOUNT: &str = "{{ mount 0 }}";

/// Splits `options` into what the markers say, and the options of the mount.
pub(super) fn split(options: &[String]) -> Result<(Markers, Vec<String>), InvalidStorage> {
    let mut markers = Markers::default();
    let mut verity = Vec::new();
    let mut is_partitioned = false;
    let mut rest = Vec::new();
    for option in options {
        let invalid = || InvalidStorage::Marker(option.clone());
        if let Some(number) = option.strip_prefix(BLOB) {
            markers.blobs.push(number.parse().map_err(|_| invalid())?);
            continue;
        }
        let Some(marker) = option.strip_prefix(PREFIX) else {
            rest.push(option.clone());
            continue;
        };
        let (key, value) = marker.split_once('=').unwrap_or((marker, ""));
        match (key, value) {
            ("multi-layer", "true") => markers.multi_layer = true,
            ("overlay-upper", "") => markers.is_upper = true,
            ("overlay-lower", "") => markers.is_lower = true,
            ("gpt-partitioned", "true") => is_partitioned = true,
            ("partition-number", number) => {
                markers.partition = Some(number.parse().map_err(|_| invalid())?);
            }
            ("mkdir.path", directory) => {
                markers.directories.push(new_directory(directory).ok_or_else(invalid)?);
            }
            ("multi-layer" | "gpt-partitioned" | "dmverity-enabled", "false") => {}
            ("dmverity-enabled", "true") => verity.push(("enabled", "true")),
            _ => match key.strip_prefix("dmverity.") {
                Some(key) => verity.push((key, value)),
                None => return Err(invalid()),
            },
        }
    }
    if is_partitioned != markers.partition.is_some() {
        return Err(InvalidStorage::Marker(
            "X-kata.gpt-partitioned without X-kata.partition-number".to_owned(),
        ));
    }
    if !markers.blobs.is_empty() && !is_partitioned {
        return Err(InvalidStorage::Marker(format!("{BLOB} of a disk without partitions")));
    }
    if verity.iter().any(|(key, _)| *key == "enabled") {
        markers.verity = Some(VerityOptions::parse(&verity)?);
    }
    Ok((markers, rest))
}

/// `{{ mount 0 }}/upper`, with `:0755` where it has permissions of its own.
fn new_directory(text: &str) -> Option<NewDirectory> {
    let below = text.strip_prefix(FIRST_MOUNT)?;
    let (path, mode) = below.split_once(':').unwrap_or((below, "0755"));
    let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?;
    Some(NewDirectory { path: GuestPath::new(path).ok()?, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_texts(options: &[&str]) -> Result<(Markers, Vec<String>), InvalidStorage> {
        split(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn markers_and_mount_options_are_told_apart() {
        let (markers, rest) = split_texts(&[
            "ro",
            "X-kata.overlay-lower",
            "X-kata.multi-layer=true",
            "X-kata.gpt-partitioned=true",
            "X-kata.partition-number=3",
            "noatime",
        ])
        .unwrap();
        let want = Markers {
            multi_layer: true,
            is_lower: true,
            partition: NonZeroU32::new(3),
            ..Markers::default()
        };
        assert_eq!((markers, rest), (want, vec!["ro".to_owned(), "noatime".to_owned()]));
    }

    #[test]
    fn directories_are_within_the_writable_layer() {
        let made =
            |text: &str| split_texts(&[&format!("X-kata.mkdir.path={text}")]).map(|(m, _)| m.directories);
        let directory = |path: &str, mode| vec![NewDirectory { path: GuestPath::new(path).unwrap(), mode }];
        assert_eq!(made("{{ mount 0 }}/upper").unwrap(), directory("/upper", 0o755));
        assert_eq!(made("{{ mount 0 }}/a/b:0700").unwrap(), directory("/a/b", 0o700));
        for bad in
            ["", "/upper", "{{ mount 1 }}/x", "{{ mount 0 }}/../x", "{{ mount 0 }}x", "{{ mount 0 }}/x:9"]
        {
            assert!(matches!(made(bad), Err(InvalidStorage::Marker(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_or_half_said_marker_is_refused() {
        for bad in [
            "X-kata.frobnicate",
            "X-kata.overlay-upper=x",
            "X-kata.partition-number=0",
            "X-kata.partition-number=1",
            "X-kata.gpt-partitioned=true",
            "X-kata.dmverity-enabled=true",
            "X-vc.blob-partition=0",
            "X-vc.blob-partition=2",
        ] {
            assert!(split_texts(&[bad]).is_err(), "{bad:?}");
        }
    }
}
