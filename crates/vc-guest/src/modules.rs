//! Kernel modules: which files a module needs, and loading them in order.

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The guest image has no such module.
    #[error("the guest image has no kernel module {0:?}")]
    Unknown(String),
    /// A file of the image cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refuses the module.
    #[error("the kernel refuses the module {path:?}")]
    Load {
        /// The module's file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A parameter with a NUL byte.
    #[error("the parameters of module {0:?} contain a NUL byte")]
    Parameters(String),
}

/// The modules of an image, by name: file and direct dependencies, from kmod's `modules.dep`; and what the kernel has
/// built in, from `modules.builtin`.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    entries: BTreeMap<String, Entry>,
    built_in: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    file: PathBuf,
    needs: Vec<String>,
}

impl ModuleIndex {
    /// Reads the text of a `modules.dep`, lines of `path.ko: dependency.ko …`, and that of a `modules.builtin`, lines
    /// of `path.ko` (depmod(8)).
    pub fn parse(text: &str, built_in: &str) -> Self {
        let entry = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_ascii_whitespace().map(module_name).collect();
            Some((module_name(file), Entry { file: file.trim().into(), needs }))
        };
        let built_in = built_in.lines().map(module_name).collect();
        Self { entries: text.lines().filter_map(entry).collect(), built_in }
    }

    /// The files to load for the module `name`, dependencies first; relative to the directory of
    /// `modules.dep`. None for what is built in.
    ///
    /// # Errors
    /// [`ModuleError::Unknown`] when the module or one of its dependencies is not listed.
    pub fn files(&self, name: &str) -> Result<Vec<&Path>, ModuleError> {
        let mut files = Vec::new();
        self.visit(&module_name(name), &mut BTreeSet::new(), &mut files)?;
        Ok(files)
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        seen: &mut BTreeSet<&'a str>,
        files: &mut Vec<&'a Path>,
    ) -> Result<(), ModuleError> {
        if self.built_in.contains(name) {
            return Ok(());
        }
        let entry = self.entries.get_key_value(name);
        let (name, entry) = entry.ok_or_else(|| ModuleError::Unknown(name.to_owned()))?;
        if seen.insert(name) {
            for needed in &entry.needs {
                self.visit(needed, seen, files)?;
            }
            files.push(&entry.file);
        }
        Ok(())
    }
}

/// `kernel/drivers/block/virtio-blk.ko` and `virtio-blk` are both called `virtio_blk`.
fn module_name(file: &str) -> String {
    let name = file.trim().rsplit('/').next().unwrap_or_default();
    name.trim_end_matches(".ko").replace('-', "_")
}

/// Loads modules of the image below one directory.
#[derive(Debug)]
pub struct ModuleLoader {
    directory: PathBuf,
    index: ModuleIndex,
    loaded: Mutex<BTreeSet<PathBuf>>,
}

impl ModuleLoader {
    /// A loader for `directory`, which holds a `modules.dep`; without one it knows no module.
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let text = |name| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        let index = ModuleIndex::parse(&text("modules.dep"), &text("modules.builtin"));
        Self { index, directory, loaded: Mutex::default() }
    }

    /// The modules to load at boot, in order: the lines of `modules.boot`.
    pub fn boot_list(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("modules.boot")).unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Loads `name` with `parameters` (`key=value …`), and first what it needs.
    ///
    /// A module that is loaded already, or being loaded by another thread, is no error.
    ///
    /// # Errors
    /// [`ModuleError`] names the file.
    pub fn load(&self, name: &str, parameters: &str) -> Result<(), ModuleError> {
        let parameters = CString::new(parameters).map_err(|_| ModuleError::Parameters(name.to_owned()))?;
        let mut files = self.index.files(name)?;
        let Some(last) = files.pop() else { return Ok(()) };
        for file in files {
            self.load_file(file, c"")?;
        }
        self.load_file(last, &parameters)
    }

    /// Loads modules by name; those that the image lacks the kernel may have built in.
    ///
    /// # Errors
    /// [`ModuleError`] names the file.
    pub fn load_if_known(&self, names: &[&str]) -> Result<(), ModuleError> {
        names.iter().try_for_each(|name| match self.load(name, "") {
            Err(ModuleError::Unknown(_)) => Ok(()),
            result => result,
        })
    }

    fn load_file(&self, file: &Path, parameters: &std::ffi::CStr) -> Result<(), ModuleError> {
        if self.loaded().contains(file) {
            return Ok(());
        }
        let path = self.directory.join(file);
        let image = File::open(&path).map_err(|source| ModuleError::Read { path: path.clone(), source })?;
        match finit_module(&image, parameters, ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {
                self.loaded().insert(file.to_owned());
                Ok(())
            }
            Err(source) => Err(ModuleError::Load { path, source }),
        }
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/vsock.ko:\n\
        kernel/net/vmw_vsock_virtio_transport.ko: kernel/net/common.ko kernel/virtio-ring.ko\n\
        kernel/net/common.ko: kernel/net/vsock.ko\n\
        kernel/virtio-ring.ko:\n\
        kernel/broken.ko: kernel/missing.ko\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let index = ModuleIndex::parse(DEP, "");
        let files = index.files("vmw-vsock-virtio-transport").unwrap();
        let want = ["net/vsock.ko", "net/common.ko", "virtio-ring.ko", "net/vmw_vsock_virtio_transport.ko"];
        assert_eq!(files, want.map(|file| Path::new("kernel").join(file)));
        assert_eq!(index.files("virtio_ring").unwrap(), [Path::new("kernel/virtio-ring.ko")]);
    }

    #[test]
    fn a_missing_dependency_is_named() {
        let error = ModuleIndex::parse(DEP, "").files("broken").unwrap_err();
        assert!(matches!(error, ModuleError::Unknown(name) if name == "missing"));
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        let index = ModuleIndex::parse(DEP, "kernel/missing.ko\nkernel/drivers/char/virtio-console.ko\n");
        assert_eq!(index.files("virtio_console").unwrap(), Vec::<&Path>::new());
        assert_eq!(index.files("broken").unwrap(), [Path::new("kernel/broken.ko")]);
        assert!(matches!(index.files("other"), Err(ModuleError::Unknown(_))));
    }

    #[test]
    fn a_circle_ends() {
        let index = ModuleIndex::parse("a.ko: b.ko\nb.ko: a.ko\n", "");
        assert_eq!(index.files("a").unwrap().len(), 2);
    }
}
