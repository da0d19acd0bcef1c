//! Tells whether an image is still what its inputs would give, without reading them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::file::{FileError, write};
use crate::image::{FILES, ImageSpec};

/// The inputs of an image by path, size and time of change, as make compares them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp(String);

impl Stamp {
    /// The stamp that the image gets. This program is an input too: it decides what goes in.
    pub(crate) fn of(spec: &ImageSpec) -> Result<Self, FileError> {
        let inputs = spec.kernel.inputs().into_iter();
        let inputs = inputs.chain([spec.init.clone(), PathBuf::from("/proc/self/exe")]);
        let lines = inputs
            .map(|input| line(&input).map_err(FileError::of("read", &input)))
            .collect::<Result<String, _>>()?;
        Ok(Self(format!("{lines}compress {}\n", spec.compress)))
    }

    /// Whether the image in `directory` is whole and was made from the inputs of this stamp.
    pub(crate) fn is_on(&self, directory: &Path) -> bool {
        let whole = FILES.iter().all(|name| directory.join(name).is_file());
        whole && fs::read_to_string(path(directory)).is_ok_and(|text| text == self.0)
    }

    /// Marks the image in `directory` as made from these inputs.
    pub(crate) fn put_on(&self, directory: &Path) -> Result<(), FileError> {
        write(&path(directory), &self.0)
    }

    /// Takes the mark away, before the first file of the image is replaced.
    pub(crate) fn take_off(directory: &Path) -> Result<(), FileError> {
        let path = path(directory);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::of("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(".stamp")
}

fn line(input: &Path) -> io::Result<String> {
    let metadata = fs::metadata(input)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = std::path::absolute(input)?;
    Ok(format!("{} {} {}\n", path.display(), metadata.len(), changed.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelSource;

    #[test]
    fn a_changed_input_or_a_missing_file_means_another_image() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let stamp = |compress| {
            let kernel = KernelSource::files(at("kernel"), None);
            Stamp::of(&ImageSpec { kernel, init: at("init"), compress }).unwrap()
        };
        for name in ["kernel", "init"].iter().chain(&FILES) {
            fs::write(at(name), name).unwrap();
        }

        assert!(!stamp(false).is_on(directory.path()), "no stamp yet");
        stamp(false).put_on(directory.path()).unwrap();
        assert!(stamp(false).is_on(directory.path()));
        assert!(!stamp(true).is_on(directory.path()), "another option");
        fs::write(at("init"), "another").unwrap();
        assert!(!stamp(false).is_on(directory.path()), "/init has changed");

        stamp(false).put_on(directory.path()).unwrap();
        fs::remove_file(at(FILES[0])).unwrap();
        assert!(!stamp(false).is_on(directory.path()), "a file is missing");
    }
}
