//! What is written down about a container, so that everybody can read it, also when its owner is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::runtime::{Hooks, Spec};
use serde::{Deserialize, Serialize};
use vc_types::ContainerId;

use super::root::ContainerDir;
use crate::failure::Failure;
use crate::serial::text;

/// Raised when a record of this version cannot be read as one of the version before.
const VERSION: u32 = 1;

/// The longest record that is read, in bytes. It holds what its bundle gives it: hooks and annotations.
const MOST: u64 = 4 << 20;

/// The state of a container in the words of the OCI runtime specification (runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It is being made.
    Creating,
    /// Its process waits for the start.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

/// What is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    version: u32,
    pub(crate) oci_version: String,
    #[serde(with = "text")]
    pub(crate) id: ContainerId,
    pub(crate) status: Status,
    /// The owner's process.
    pub(crate) pid: Option<u32>,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// When it was asked for, by RFC 3339.
    pub(crate) created: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// For the hooks that run when the bundle may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Hooks>,
    /// The host's cgroups that its owner and its machine are in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cgroups: Vec<PathBuf>,
    /// The exit code, once its process has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u8>,
}

impl Record {
    /// Of a container that is going to be made from `bundle`.
    pub(crate) fn new(id: ContainerId, bundle: PathBuf, spec: &Spec) -> Self {
        let root = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
        Self {
            version: VERSION,
            oci_version: spec.version().clone(),
            id,
            status: Status::Creating,
            pid: None,
            rootfs: bundle.join(root),
            bundle,
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            hooks: spec.hooks().clone(),
            cgroups: Vec::new(),
            exit_code: None,
        }
    }

    /// Writes it in place of the one before; who reads meanwhile sees one or the other.
    pub(crate) fn write(&self, dir: &ContainerDir) -> Result<(), Failure> {
        let json = serde_json::to_vec(self).expect("a record has nothing that JSON has not");
        let file = dir.record_file();
        replace(&file, &json).map_err(|error| Failure::step(format!("write {}", file.display()), error))
    }

    pub(crate) fn read(dir: &ContainerDir) -> Result<Self, Failure> {
        let file = dir.record_file();
        let step = || format!("read {}", file.display());
        let json = read_bounded(&file).map_err(|error| Failure::step(step(), error))?;
        let record: Self = serde_json::from_slice(&json).map_err(|error| Failure::step(step(), error))?;
        if record.version != VERSION {
            let other = format!("it was written by another version of vc (record {})", record.version);
            return Err(Failure::message(format!("could not {}: {other}", step())));
        }
        Ok(record)
    }
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(file)
}

/// Puts a file of mode 0600 with these bytes where `file` is; after a crash there is the old or the new one.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write_new(new: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()
}
