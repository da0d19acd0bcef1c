//! The text of `/proc/mounts` and `/etc/mtab`, for compatibility.
//!
//! It has neither ids nor roots, so it cannot tell which of several mounts at one path is visible, nor a bind
//! from what is bound; and it is no cheaper to read than mountinfo. Take [`mountinfo`](crate::mountinfo)
//! wherever there is a choice. The format is that of fstab(5), with single spaces.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use crate::bytes::{lines, os_str, path};
use crate::escape::unescape;
use crate::mountinfo::MalformedLine;
use crate::sys::find_byte;

/// One line of `/proc/mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcMount<'a> {
    /// The source, whatever the mounter gave; possibly empty.
    pub source: Cow<'a, OsStr>,
    /// Where it is mounted.
    pub mount_point: Cow<'a, Path>,
    /// The filesystem's type.
    pub fs_type: Cow<'a, OsStr>,
    /// The options of mount and filesystem, still escaped.
    pub options: &'a [u8],
}

/// Parses the whole text. A malformed line is an `Err` item and does not end the iteration.
///
/// ```
/// let mounts = vc_mountinfo::proc_mounts::parse(b"/dev/sda1 /a\\040b ext4 rw,noatime 0 0\n");
/// let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(mounts[0].mount_point.to_str(), Some("/a b"));
/// # Ok::<(), vc_mountinfo::mountinfo::MalformedLine>(())
/// ```
pub fn parse(text: &[u8]) -> impl Iterator<Item = Result<ProcMount<'_>, MalformedLine>> {
    lines(text).map(parse_line)
}

fn parse_line(line: &[u8]) -> Result<ProcMount<'_>, MalformedLine> {
    let malformed = |missing| MalformedLine { missing, line: line.into() };
    let mut rest = line;
    let mut field = || {
        let end = find_byte(b' ', rest)?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        Some(field)
    };
    let source = field().ok_or_else(|| malformed("source"))?;
    let mount_point = field().filter(|f| !f.is_empty()).ok_or_else(|| malformed("mount point"))?;
    let fs_type = field().ok_or_else(|| malformed("filesystem type"))?;
    // The two numbers at the end are always 0; some filesystems print blanks in options unescaped.
    let options = rest.strip_suffix(b" 0 0").ok_or_else(|| malformed("options"))?;
    Ok(ProcMount {
        source: os_str(unescape(source)),
        mount_point: path(unescape(mount_point)),
        fs_type: os_str(unescape(fs_type)),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_sources_and_blanks_in_options_are_understood() {
        let text =
            b" /m\\134 tmpfs rw 0 0\nx /n 9p rw,opt=a b,c 0 0\n#\\043 /o t rw 0 0\nbroken\n\na b c d\n";
        let mounts: Vec<_> = parse(text).collect();
        let first = mounts[0].as_ref().unwrap();
        assert_eq!((first.source.to_str(), first.mount_point.to_str()), (Some(""), Some("/m\\")));
        assert_eq!(mounts[1].as_ref().unwrap().options, b"rw,opt=a b,c");
        assert_eq!(&*mounts[2].as_ref().unwrap().source, "##");
        let missing: Vec<_> = mounts[3..].iter().map(|line| line.as_ref().unwrap_err().missing).collect();
        assert_eq!(missing, ["source", "source", "options"]);
        assert_eq!([parse(b"").count(), parse(b"\n").count()], [0, 1]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_lose_a_line(text in "[ a0\\\\\n]{0,200}") {
            prop_assert_eq!(parse(text.as_bytes()).count(), text.lines().count());
        }
    }
}
