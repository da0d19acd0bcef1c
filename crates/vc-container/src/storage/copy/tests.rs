//! What others do to the source while it is copied never leads out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use vc_agent::{AgentError, CopyFile, FileContent, Storage, VolumeStats, Volumes};
use vc_storage::{CopyPlan, Part};
use vc_types::{Deadline, GuestPath, HostPath};

use super::{CopyFailed, copy};

/// What another writer does to the source.
type Swap = Box<dyn FnOnce() + Send>;

/// A guest that keeps what it gets. When it gets the first thing, which is the top directory, all is listed and
/// nothing below is opened yet: then the other writer has its turn.
struct Guest {
    swap: Mutex<Option<Swap>>,
    got: Mutex<BTreeMap<String, String>>,
}

impl Volumes for Guest {
    async fn copy_file(&self, file: &CopyFile<'_>, _: Deadline) -> Result<(), AgentError> {
        if let Some(swap) = self.swap.lock().unwrap().take() {
            swap();
        }
        let (offset, text) = match file.content {
            FileContent::Directory => (0, "a directory".to_owned()),
            FileContent::Symlink { target } => (0, format!("a link to {target}")),
            FileContent::Regular { offset, data, .. } => {
                (offset, format!("{} bytes: {}", data.len(), String::from_utf8_lossy(data)))
            }
        };
        let name = if offset == 0 { file.path.to_string() } else { format!("{} from {offset}", file.path) };
        self.got.lock().unwrap().insert(name, text);
        Ok(())
    }

    async fn volume_stats(&self, _: &GuestPath, _: Deadline) -> Result<VolumeStats, AgentError> {
        unreachable!("a copy asks for none")
    }

    async fn resize_volume(&self, _: &GuestPath, _: u64, _: Deadline) -> Result<(), AgentError> {
        unreachable!("a copy resizes nothing")
    }

    async fn update_ephemeral_mounts(&self, _: &[Storage], _: Deadline) -> Result<(), AgentError> {
        unreachable!("a copy mounts nothing")
    }

    async fn remove_stale_shares(&self, _: Deadline) -> Result<(), AgentError> {
        unreachable!("a copy unmounts nothing")
    }
}

/// Copies a directory, in a thread of its own: whatever waits for ever fails the test instead.
fn copied(
    source: &Path,
    watched: bool,
    swap: impl FnOnce() + Send + 'static,
) -> (Result<(), CopyFailed>, BTreeMap<String, String>) {
    let plan = CopyPlan {
        part: Part::Mount(0),
        source: HostPath::new(source).unwrap(),
        target: GuestPath::new("/run/copy").unwrap(),
        watched,
    };
    let guest = Guest { swap: Mutex::new(Some(Box::new(swap))), got: Mutex::default() };
    let (done, end) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let result = runtime.block_on(copy(&guest, &plan, Deadline::after(Duration::from_secs(60))));
        let _ = done.send((result, guest.got.into_inner().unwrap()));
    });
    end.recv_timeout(Duration::from_secs(60)).expect("the copy comes to an end")
}

/// A directory with a file and a directory in it, and what it must not lead to, beside it.
fn source() -> (tempfile::TempDir, std::path::PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let base_path = base.path().canonicalize().unwrap();
    let source = base_path.join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("file"), "of the volume").unwrap();
    fs::write(source.join("sub/file"), "below").unwrap();
    fs::create_dir(base_path.join("host")).unwrap();
    fs::write(base_path.join("host/file"), "secret, and longer than the file").unwrap();
    (base, source)
}

#[track_caller]
fn assert_refused(copied: &(Result<(), CopyFailed>, BTreeMap<String, String>), name: &str) {
    let (result, got) = copied;
    let error = result.as_ref().unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert!(!got.values().any(|text| text.contains("secret")), "{got:?}");
}

#[test]
fn a_file_that_becomes_a_link_is_not_followed() {
    let (base, source) = source();
    let (file, secret) = (source.join("file"), base.path().join("host/file"));
    let copied = copied(&source, false, move || {
        fs::remove_file(&file).unwrap();
        symlink(secret, file).unwrap();
    });
    assert_refused(&copied, "source/file");
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let (base, source) = source();
    let (directory, host) = (source.join("sub"), base.path().join("host"));
    let copied = copied(&source, false, move || {
        fs::remove_dir_all(&directory).unwrap();
        symlink(host, directory).unwrap();
    });
    assert_refused(&copied, "source/sub/file");
}

#[test]
fn a_file_that_becomes_a_fifo_holds_nothing_up() {
    let (_base, source) = source();
    let file = source.join("file");
    let copied = copied(&source, false, move || {
        fs::remove_file(&file).unwrap();
        mkfifo(&file, Mode::S_IRWXU).unwrap();
    });
    assert_refused(&copied, "source/file");
}

#[test]
fn a_source_that_was_resolved_and_became_a_link_is_not_followed() {
    let (base, source) = source();
    fs::remove_dir_all(&source).unwrap();
    symlink(base.path().join("host"), &source).unwrap();
    assert_refused(&copied(&source, false, || {}), "source");
}

#[test]
fn what_is_neither_a_file_a_directory_nor_a_link_stays_behind() {
    let (_base, source) = source();
    mkfifo(&source.join("fifo"), Mode::S_IRWXU).unwrap();
    symlink("file", source.join("link")).unwrap();
    fs::write(source.join("large"), vec![b'x'; (1 << 20) + 3]).unwrap();
    let (result, got) = copied(&source, true, || {});
    result.unwrap();
    let names: Vec<&str> = got.keys().map(|name| name.strip_prefix("/run/copy").unwrap()).collect();
    assert_eq!(names, ["", "/file", "/large", "/large from 1048576", "/link", "/sub", "/sub/file"]);
    assert_eq!(got["/run/copy/link"], "a link to file");
    assert_eq!(got["/run/copy/large from 1048576"], "3 bytes: xxx");
    assert_eq!(got["/run/copy/sub/file"], "5 bytes: below");
}

#[test]
fn what_is_watched_gets_no_link_to_what_has_changed() {
    let (_base, source) = source();
    symlink("file", source.join("link")).unwrap();
    let later = source.join("later");
    let (result, got) = copied(&source, true, move || fs::write(later, "later").unwrap());
    assert!(result.unwrap_err().is_change());
    assert!(!got.contains_key("/run/copy/link"), "{got:?}");
}
