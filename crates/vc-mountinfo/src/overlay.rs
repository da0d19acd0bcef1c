//! The options of an overlay: its lower directories in order, upper and work directory.
//!
//! Escaping differs by place and by option, as Documentation/filesystems/overlayfs.rst and the kernel's
//! own parser have it:
//!
//! * in a mount table, each byte that would confuse the table shows as an octal escape, a comma as `\054`;
//! * in the options of mount(2), a backslash keeps a comma from ending the option;
//! * in the value of `lowerdir=`, `upperdir=` and `workdir=`, a backslash stands before a literal colon or
//!   backslash; colons separate the lower directories, and two colons start those for data only;
//! * `lowerdir+=` and `datadir+=` add one directory each, whose name is taken as it is.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::bytes::path_buf;
use crate::escape::unescape;

/// One lower directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowerDir {
    /// The directory; relative names are relative to where the mounter was.
    pub path: PathBuf,
    /// Whether it only holds data for `redirect` files, and no names of its own.
    pub data_only: bool,
}

impl<P: Into<PathBuf>> From<P> for LowerDir {
    fn from(path: P) -> Self {
        Self { path: path.into(), data_only: false }
    }
}

/// The directories of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// The lower directories, top first.
    pub lower: Vec<LowerDir>,
    /// The upper directory; without one the overlay is read-only.
    pub upper: Option<PathBuf>,
    /// The work directory.
    pub work: Option<PathBuf>,
}

/// Why options are not those of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// No option names a lower directory.
    #[error("the options name no lower directory")]
    NoLower,
    /// A lower directory has an empty name.
    #[error("the overlay option {option:?} names an empty directory")]
    Empty {
        /// The option.
        option: String,
    },
    /// A single colon, or `lowerdir+`, after a directory for data only.
    #[error("the overlay option {option:?} has a lower directory after one for data only")]
    LowerAfterData {
        /// The option.
        option: String,
    },
}

impl OverlayOptions {
    /// Reads options as a mount table shows them, such as [`Mount::fs_options`](crate::Mount::fs_options).
    ///
    /// # Errors
    /// [`OverlayError`] when these are not an overlay's options.
    pub fn from_mount_table(options: impl AsRef<OsStr>) -> Result<Self, OverlayError> {
        let options = options.as_ref().as_bytes();
        Self::collect(options.split(|b| *b == b',').map(unescape))
    }

    /// Reads options as given to mount(2): one string, or several as a snapshotter hands them over.
    ///
    /// ```
    /// use vc_mountinfo::OverlayOptions;
    ///
    /// let overlay = OverlayOptions::from_mount_options(["ro", r"lowerdir=/layers/a\:b:/layers/c"])?;
    /// assert_eq!(overlay.lower[0].path.to_str(), Some("/layers/a:b"));
    /// # Ok::<(), vc_mountinfo::OverlayError>(())
    /// ```
    ///
    /// # Errors
    /// [`OverlayError`] when these are not an overlay's options.
    pub fn from_mount_options<S: AsRef<OsStr>>(
        options: impl IntoIterator<Item = S>,
    ) -> Result<Self, OverlayError> {
        let mut all = Vec::new();
        for option in options {
            all.extend(split_unescaped(option.as_ref().as_bytes(), b',').map(<[u8]>::to_vec));
        }
        Self::collect(all.into_iter().map(Cow::Owned))
    }

    /// The same with relative directories taken from `base`.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        // Joining an absolute path gives that path.
        self.lower.iter_mut().for_each(|lower| lower.path = base.join(&lower.path));
        self.upper = self.upper.map(|upper| base.join(upper));
        self.work = self.work.map(|work| base.join(work));
        self
    }

    fn collect<'a>(options: impl Iterator<Item = Cow<'a, [u8]>>) -> Result<Self, OverlayError> {
        let mut overlay = Self::default();
        for option in options {
            let Some(equals) = option.iter().position(|b| *b == b'=') else { continue };
            let value = &option[equals + 1..];
            match &option[..equals] {
                b"lowerdir" => overlay.lower = lower_dirs(value, &option)?,
                b"lowerdir+" => overlay.push(value, false, &option)?,
                b"datadir+" => overlay.push(value, true, &option)?,
                b"upperdir" => overlay.upper = Some(path_buf(drop_backslashes(value))),
                b"workdir" => overlay.work = Some(path_buf(drop_backslashes(value))),
                _ => {}
            }
        }
        if overlay.lower.is_empty() { Err(OverlayError::NoLower) } else { Ok(overlay) }
    }

    fn push(&mut self, value: &[u8], data_only: bool, option: &[u8]) -> Result<(), OverlayError> {
        push(&mut self.lower, LowerDir { path: path_buf(value.to_vec()), data_only }, option)
    }
}

fn push(lower: &mut Vec<LowerDir>, dir: LowerDir, option: &[u8]) -> Result<(), OverlayError> {
    let option = || option.escape_ascii().to_string();
    if dir.path.as_os_str().is_empty() {
        return Err(OverlayError::Empty { option: option() });
    }
    if !dir.data_only && lower.last().is_some_and(|last| last.data_only) {
        return Err(OverlayError::LowerAfterData { option: option() });
    }
    lower.push(dir);
    Ok(())
}

/// Reads `a:b::c`: `a` and `b` are lower directories, `c` is one for data only.
fn lower_dirs(value: &[u8], option: &[u8]) -> Result<Vec<LowerDir>, OverlayError> {
    let mut lower = Vec::new();
    let mut parts = split_unescaped(value, b':');
    while let Some(mut part) = parts.next() {
        let data_only = part.is_empty() && !lower.is_empty();
        if data_only {
            part = parts.next().unwrap_or_default();
        }
        push(&mut lower, LowerDir { path: path_buf(drop_backslashes(part)), data_only }, option)?;
    }
    Ok(lower)
}

/// Splits at `separator` where no backslash stands before it.
fn split_unescaped(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    text.split(move |byte| {
        let splits = *byte == separator && !escaped;
        escaped = *byte == b'\\' && !escaped;
        splits
    })
}

/// Drops each backslash that stands before another byte.
fn drop_backslashes(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(bytes.next().copied().unwrap_or(byte)),
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
