//! Tells whether an image is still what its inputs would give, without reading them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use super::output;
use super::source::Source;

/// The inputs of an image by path, size and time of change, as make compares them; `vc-guest` itself is cargo's to check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(String);

impl Stamp {
    /// The stamp that an image from these inputs gets. This program is an input too: it decides what goes in.
    pub(super) fn of(source: &Source, init: &Path, compress: bool) -> Result<Self> {
        let inputs = source.files().into_iter().chain([init.to_owned(), PathBuf::from("/proc/self/exe")]);
        let lines = inputs.map(|input| line(&input)).collect::<Result<String>>()?;
        Ok(Self(format!("{lines}compress {compress}\n")))
    }

    /// Whether the image in `directory` is whole and was made from the inputs of this stamp.
    pub(super) fn is_on(&self, directory: &Path) -> bool {
        let whole = output::FILES.iter().all(|name| directory.join(name).is_file());
        whole && fs::read_to_string(path(directory)).is_ok_and(|text| text == self.0)
    }

    /// Marks the image in `directory` as made from these inputs.
    pub(super) fn put_on(&self, directory: &Path) -> Result<()> {
        let path = path(directory);
        fs::write(&path, &self.0).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes the mark away, before the first file of the image is replaced.
    pub(super) fn take_off(directory: &Path) -> Result<()> {
        match fs::remove_file(path(directory)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove the stamp")
            }
            _ => Ok(()),
        }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(".stamp")
}

fn line(input: &Path) -> Result<String> {
    let about = || format!("cannot read {}", input.display());
    let metadata = fs::metadata(input).with_context(about)?;
    let changed = metadata.modified().with_context(about)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = std::path::absolute(input).with_context(about)?;
    Ok(format!("{} {} {}\n", path.display(), metadata.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_input_or_a_missing_file_means_another_image() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let source = Source::Files { kernel: at("kernel"), modules: None };
        let stamp = || Stamp::of(&source, &at("init"), false).unwrap();
        for name in ["kernel", "init"].iter().chain(&output::FILES) {
            fs::write(at(name), name).unwrap();
        }

        assert!(!stamp().is_on(directory.path()), "no stamp yet");
        stamp().put_on(directory.path()).unwrap();
        assert!(stamp().is_on(directory.path()));
        let compressed = Stamp::of(&source, &at("init"), true).unwrap();
        assert!(!compressed.is_on(directory.path()), "another option");
        fs::write(at("init"), "another").unwrap();
        assert!(!stamp().is_on(directory.path()), "/init has changed");

        stamp().put_on(directory.path()).unwrap();
        fs::remove_file(at(output::FILES[0])).unwrap();
        assert!(!stamp().is_on(directory.path()), "a file is missing");
    }
}
