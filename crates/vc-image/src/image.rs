//! An image: what it is made of, and how it comes to the disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::TooLargeError;
use crate::file::{self, FileError};
use crate::initrd;
use crate::kernel::{KernelError, KernelSource};
use crate::lock::lock;
use crate::lz4;
use crate::manifest::manifest;
use crate::modules::GUEST;
use crate::program::{ProgramError, is_static};
use crate::stamp::Stamp;

/// The names of an image's files.
pub const FILES: [&str; 3] = ["vmlinux", "initrd", "manifest.json"];

/// What an image is made of.
#[derive(Debug)]
pub struct ImageSpec {
    /// Where the kernel comes from.
    pub kernel: KernelSource,
    /// The static program that becomes `/init`.
    pub init: PathBuf,
    /// Whether the initrd is compressed: half as large, and a start under emulation about 90 ms longer.
    pub compress: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the image that is there was made from the same.
    UpToDate,
    /// The image was made.
    Built,
}

/// An image was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Its kernel or the modules of it cannot be had.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The program cannot be `/init`.
    #[error("{} cannot be /init", path.display())]
    Init {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: ProgramError,
    },
    /// Something does not fit into an initrd.
    #[error(transparent)]
    TooLarge(#[from] TooLargeError),
    /// The system refused something.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ImageSpec {
    /// Makes the image in `directory`, which is made too, unless the one that is there was made from the same files by
    /// the same program. The same kernel, modules and program give the same bytes. `tell` hears what is under way.
    ///
    /// Whoever has a file of the old image open keeps it whole. Waits while somebody else makes an image there.
    ///
    /// # Errors
    /// When the kernel, its modules or the program cannot be used, and when something cannot be read or written. The
    /// image that was there before stays.
    pub fn build(&self, directory: &Path, tell: &dyn Fn(&str)) -> Result<Outcome, ImageError> {
        let _lock = lock(directory)?;
        let stamp = Stamp::of(self)?;
        if stamp.is_on(directory) {
            return Ok(Outcome::UpToDate);
        }
        let files = self.make(tell)?;
        replace(directory, &files)?;
        stamp.put_on(directory)?;
        Ok(Outcome::Built)
    }

    /// The contents of [`FILES`].
    fn make(&self, tell: &dyn Fn(&str)) -> Result<[Vec<u8>; 3], ImageError> {
        let init = file::read(&self.init)?;
        let about = |source| ImageError::Init { path: self.init.clone(), source };
        if !is_static(&init).map_err(about)? {
            return Err(about(ProgramError::NotStatic));
        }
        tell("unpacking the kernel");
        let kernel = self.kernel.read(&GUEST)?;
        tell(&format!("kernel {}, {} modules", kernel.release, kernel.modules.modules.len()));
        let archive = initrd::pack(&init, &kernel.modules)?;
        let compressed = lz4::compress(&archive);
        let compressed_size = compressed.len();
        let initrd = if self.compress { compressed } else { archive };
        let manifest = manifest(&kernel, &init, &initrd, compressed_size);
        for (name, data) in [("vmlinux", &kernel.vmlinux), ("initrd", &initrd)] {
            tell(&format!("{name} {:.1} MiB", mebibytes(data.len())));
        }
        Ok([kernel.vmlinux, initrd, manifest])
    }
}

/// Replaces the image in `directory`. What can go wrong does so before the first file is replaced; a run that is killed
/// in between leaves no stamp, so the next one starts anew.
fn replace(directory: &Path, files: &[Vec<u8>; 3]) -> Result<(), FileError> {
    let new = FILES.map(|name| directory.join(format!(".{name}.new")));
    let written = new.iter().zip(files).try_for_each(|(path, data)| file::write(path, data));
    if written.is_err() {
        for path in &new {
            // There may be none; what is left is overwritten the next time.
            let _ = fs::remove_file(path);
        }
        return written;
    }
    Stamp::take_off(directory)?;
    new.iter().zip(FILES).try_for_each(|(path, name)| file::rename(path, &directory.join(name)))
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_written_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let files = |text: &str| FILES.map(|name| format!("{text} {name}").into_bytes());
        replace(directory.path(), &files("old")).unwrap();
        // The last one that is written.
        fs::create_dir(at(".manifest.json.new")).unwrap();

        let error = replace(directory.path(), &files("new")).unwrap_err();
        assert_eq!(error.path(), at(".manifest.json.new"));
        for name in FILES {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), format!("old {name}"));
        }
        assert!(!at(".vmlinux.new").exists() && !at(".initrd.new").exists());

        fs::remove_dir(at(".manifest.json.new")).unwrap();
        replace(directory.path(), &files("new")).unwrap();
        assert_eq!(fs::read_to_string(at("initrd")).unwrap(), "new initrd");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), FILES.len());
    }

    #[test]
    fn what_is_not_static_is_refused_and_leaves_nothing_but_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let this_test = std::env::current_exe().unwrap();
        let spec = ImageSpec {
            kernel: KernelSource::files("/etc/passwd".into(), None),
            init: this_test,
            compress: false,
        };
        let error = spec.build(directory.path(), &|_| ()).unwrap_err();
        assert!(matches!(&error, ImageError::Init { source: ProgramError::NotStatic, .. }), "{error}");
        assert_eq!(file::list(directory.path()).unwrap(), [directory.path().join(".lock")]);
    }
}
