//! Where CSI drivers leave direct-assigned volumes to the runtime: a directory for each, as Kata has it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use vc_types::{HostPath, SandboxId};

use super::direct::{DirectVolume, InvalidDirectVolume};

/// Where Kata's tools and CSI drivers have them.
const ROOT: &str = "/run/kata-containers/shared/direct-volumes";

/// What describes a volume.
const INFO: &str = "mountInfo.json";

/// The most bytes of a description.
const MOST: u64 = 64 * 1024;

/// The direct-assigned volumes of a host: below one directory, a directory for each that is named after the
/// volume's path in base64 (RFC 4648, section 5).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// use vc_storage::DirectVolumes;
///
/// let volumes = DirectVolumes::below(directory.path().join("volumes"));
/// let path = vc_types::HostPath::new("/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/data/mount")?;
/// volumes.add(&path, br#"{"volume-type": "block", "device": "/dev/sdb", "fstype": "ext4"}"#)?;
/// assert_eq!(volumes.find(&path)?.map(|volume| volume.fs_type), Some("ext4".to_owned()));
/// volumes.record(&path, &"web".parse()?)?;
/// assert_eq!(volumes.sandbox(&path)?, Some("web".parse()?));
/// volumes.remove(&path)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DirectVolumes {
    root: PathBuf,
}

impl Default for DirectVolumes {
    fn default() -> Self {
        Self { root: ROOT.into() }
    }
}

impl DirectVolumes {
    /// Those below `root`, which need not exist.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where they are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves a volume to the runtime: `info` is its `mountInfo.json`.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when it is malformed, or cannot be written; nothing is changed then.
    pub fn add(&self, volume: &HostPath, info: &[u8]) -> Result<(), InvalidDirectVolume> {
        DirectVolume::parse(info)?;
        let directory = self.directory(volume);
        let step = |path: &PathBuf, source| InvalidDirectVolume::Store { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|e| step(&directory, e))?;
        let (new, info_file) = (directory.join(".mountInfo.json.new"), directory.join(INFO));
        // Under another name first: nobody finds half a description.
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(info)?;
            file.sync_all()
        };
        write().map_err(|e| step(&new, e))?;
        fs::rename(&new, &info_file).map_err(|e| step(&info_file, e))
    }

    /// The volume that is assigned to a path; `None` if none is.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when one is and cannot be read or understood. It is never served as the plain
    /// directory that it is on the host: the container would write to the host's disk.
    pub fn find(&self, volume: &HostPath) -> Result<Option<DirectVolume>, InvalidDirectVolume> {
        let path = self.directory(volume).join(INFO);
        let failed = |source| InvalidDirectVolume::Store { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        file.take(MOST + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MOST {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        DirectVolume::parse(&text).map(Some)
    }

    /// Records that a sandbox uses the volume, so that its driver can ask that sandbox about it.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when there is no such volume, or it cannot be written.
    pub fn record(&self, volume: &HostPath, sandbox: &SandboxId) -> Result<(), InvalidDirectVolume> {
        let directory = self.directory(volume);
        let path = directory.join(sandbox.as_str());
        let failed = |source| InvalidDirectVolume::Store { path: path.clone(), source };
        fs::metadata(directory.join(INFO)).map_err(failed)?;
        File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        Ok(())
    }

    /// The sandbox that uses the volume.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when the directory cannot be read.
    pub fn sandbox(&self, volume: &HostPath) -> Result<Option<SandboxId>, InvalidDirectVolume> {
        let directory = self.directory(volume);
        let failed = |source| InvalidDirectVolume::Store { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // What is no name of a sandbox is the description, or of somebody else.
            let id = name.to_str().filter(|name| *name != INFO && !name.starts_with('.'));
            if let Some(id) = id.and_then(|name| name.parse().ok()) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Forgets that a sandbox uses the volume. What is not recorded is fine.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when it cannot be removed.
    pub fn forget(&self, volume: &HostPath, sandbox: &SandboxId) -> Result<(), InvalidDirectVolume> {
        let path = self.directory(volume).join(sandbox.as_str());
        match fs::remove_file(&path) {
            Err(source) if !is_nothing(&source) => Err(InvalidDirectVolume::Store { path, source }),
            _ => Ok(()),
        }
    }

    /// Takes the volume back from the runtime. What is not there is fine.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`] when it cannot be removed.
    pub fn remove(&self, volume: &HostPath) -> Result<(), InvalidDirectVolume> {
        let directory = self.directory(volume);
        match fs::remove_dir_all(&directory) {
            Err(source) if !is_nothing(&source) => {
                Err(InvalidDirectVolume::Store { path: directory, source })
            }
            _ => Ok(()),
        }
    }

    fn directory(&self, volume: &HostPath) -> PathBuf {
        self.root.join(URL_SAFE.encode(volume.as_path().as_os_str().as_encoded_bytes()))
    }
}

/// Nothing is there; nor can anything be by a name that is too long for a file.
fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO_TEXT: &str = r#"{"volume-type":"block","device":"/dev/sdb","fstype":"ext4"}"#;

    fn store() -> (tempfile::TempDir, DirectVolumes, HostPath) {
        let root = tempfile::tempdir().unwrap();
        let volumes = DirectVolumes::below(root.path().join("direct-volumes"));
        (root, volumes, HostPath::new("/pods/1/volume").unwrap())
    }

    #[test]
    fn a_volume_is_found_until_it_is_removed() {
        let (_root, volumes, path) = store();
        assert_eq!(volumes.find(&path).unwrap(), None);
        volumes.add(&path, INFO_TEXT.as_bytes()).unwrap();
        assert_eq!(volumes.find(&path).unwrap().unwrap().device.to_string(), "/dev/sdb");
        let other = HostPath::new("/pods/1/volume2").unwrap();
        assert_eq!(volumes.find(&other).unwrap(), None);
        let long = HostPath::new(format!("/{}", "x/".repeat(2000))).unwrap();
        assert_eq!(volumes.find(&long).unwrap(), None);
        volumes.remove(&path).unwrap();
        volumes.remove(&path).unwrap();
        assert_eq!(volumes.find(&path).unwrap(), None);
    }

    #[test]
    fn a_sandbox_is_recorded_only_for_a_volume_that_is_there() {
        let (_root, volumes, path) = store();
        let id: SandboxId = "web".parse().unwrap();
        assert!(volumes.record(&path, &id).is_err());
        volumes.add(&path, INFO_TEXT.as_bytes()).unwrap();
        assert_eq!(volumes.sandbox(&path).unwrap(), None);
        volumes.record(&path, &id).unwrap();
        volumes.record(&path, &id).unwrap();
        assert_eq!(volumes.sandbox(&path).unwrap(), Some(id.clone()));
        volumes.forget(&path, &id).unwrap();
        volumes.forget(&path, &id).unwrap();
        assert_eq!(volumes.sandbox(&path).unwrap(), None);
    }

    #[test]
    fn l9_what_is_there_and_unreadable_is_no_absence() {
        let (_root, volumes, path) = store();
        assert!(volumes.add(&path, b"{").is_err(), "and is not written");
        assert_eq!(volumes.find(&path).unwrap(), None);
        volumes.add(&path, INFO_TEXT.as_bytes()).unwrap();
        let file = volumes.directory(&path).join(INFO);
        fs::write(&file, "").unwrap();
        assert!(matches!(volumes.find(&path), Err(InvalidDirectVolume::Json(_))));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(volumes.find(&path), Err(InvalidDirectVolume::Store { .. })));
        fs::remove_dir(&file).unwrap();
        fs::write(&file, vec![b' '; 70_000]).unwrap();
        assert!(matches!(volumes.find(&path), Err(InvalidDirectVolume::Store { .. })));
    }
}
