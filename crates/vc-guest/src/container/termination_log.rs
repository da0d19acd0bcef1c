//! GetDiagnosticData: what the container left to be read after its end.

use super::Container;
use crate::error::CallError;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The annotation by which Kubernetes names the file.
const ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";

/// What Kubernetes takes of it, in bytes.
const MAX_LENGTH: u64 = 4096;

impl Container {
    /// The container's termination message, empty when it wrote none.
    pub(crate) fn termination_log(&self) -> Result<String, CallError> {
        let path = self.bundle.join("config.json");
        let spec = Spec::load(&path).map_err(|error| CallError::File(path, std::io::Error::other(error)))?;
        let annotation = spec.annotations().as_ref().and_then(|all| all.get(ANNOTATION));
        let wanted = annotation.ok_or_else(|| CallError::NoTerminationLog(self.id.to_string()))?;
        read(&spec, Path::new(wanted))
    }
}

/// Reads `wanted`, a path in the container, from outside: what is mounted there, or the file of its root.
fn read(spec: &Spec, wanted: &Path) -> Result<String, CallError> {
    let mounts = spec.mounts().iter().flatten();
    let source = mounts
        .filter(|mount| mount.destination() == wanted)
        .filter_map(|mount| mount.source().clone())
        .next_back();
    let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    // The container chose the links; they lead nowhere but to its own files.
    let (base, below) = match source {
        Some(source) => (PathBuf::from("/"), source),
        None => (root, wanted.to_owned()),
    };
    let failed = |error: std::io::Error| CallError::File(wanted.to_owned(), error);
    let file = match open_within(&base, &below) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut text).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn open_within(base: &Path, below: &Path) -> std::io::Result<File> {
    let base = open(base, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let file = File::from(openat2(&base, below, OpenHow::new().flags(flags).resolve(resolve))?);
    // A pipe or a device would never come to an end.
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{MountBuilder, RootBuilder, SpecBuilder};
    use std::os::unix::fs::symlink;

    fn spec(root: &Path, mounts: Vec<oci_spec::runtime::Mount>) -> Spec {
        let root = RootBuilder::default().path(root).build().unwrap();
        SpecBuilder::default().root(root).mounts(mounts).build().unwrap()
    }

    #[test]
    fn the_message_is_read_from_the_root_or_from_what_is_mounted_there() {
        let root = tempfile::tempdir().unwrap();
        let path = Path::new("/dev/termination-log");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        assert_eq!(read(&spec(root.path(), vec![]), path).unwrap(), "");
        std::fs::write(root.path().join("dev/termination-log"), "inside").unwrap();
        assert_eq!(read(&spec(root.path(), vec![]), path).unwrap(), "inside");
        let source = root.path().join("mounted");
        std::fs::write(&source, [b'x'; 5000]).unwrap();
        let mount = MountBuilder::default().destination(path).source(&source).build().unwrap();
        assert_eq!(read(&spec(root.path(), vec![mount]), path).unwrap().len(), 4096);
    }

    #[test]
    fn a_link_of_the_container_leads_to_its_own_files_only() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc/hostname", root.path().join("log")).unwrap();
        assert_eq!(read(&spec(root.path(), vec![]), Path::new("/log")).unwrap(), "");
        std::fs::create_dir(root.path().join("dir")).unwrap();
        assert!(read(&spec(root.path(), vec![]), Path::new("/dir")).is_err());
    }
}
