//! The obligations of [`Volumes`](crate::Volumes).

use vc_types::GuestPath;

use super::fixture::{bind, container_id};
use super::processes::{remove, running_as};
use super::streams::drain;
use super::{Fixture, Workload};
use crate::io::copy_file;
use crate::{Agent, AgentError, CopyFile, FileContent, Storage, StorageDriver};

/// Where agents take files (`container-shared` of Kata's runtime).
const SHARED: &str = "/run/kata-containers/shared/containers";

/// A file of several pieces arrives whole, at a path whose directories are made, and can be bound into
/// a container.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_file_arrives_whole(agent: &impl Agent, fixture: &impl Fixture) {
    let sent: Vec<u8> = (0..=250).cycle().take(2 * FileContent::MAX_PIECE + 4711).collect();
    let file = file(&format!("{SHARED}/conformance/some/file"));
    let size = u64::try_from(sent.len()).expect("a few MiB");
    let copied = copy_file(agent, &file, size, &mut &sent[..], fixture.deadline()).await;
    copied.expect("the file is copied");
    assert!(bound(agent, fixture, &file.path).await == sent, "the file is another one");
}

/// A file that is copied again is replaced, also by an empty one.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_copied_file_replaces_another(agent: &impl Agent, fixture: &impl Fixture) {
    let file = file(&format!("{SHARED}/conformance/replaced"));
    for text in [&b"the first, and longer"[..], b"second", b""] {
        let size = u64::try_from(text.len()).expect("a few bytes");
        copy_file(agent, &file, size, &mut &text[..], fixture.deadline()).await.expect("the file is copied");
        assert_eq!(bound(agent, fixture, &file.path).await, text);
    }
}

/// Files are taken nowhere but below `/run`.
///
/// # Panics
/// When the obligation is not met.
pub async fn files_are_taken_below_run_only(agent: &impl Agent, fixture: &impl Fixture) {
    for path in ["/etc/vc-conformance", "/vc-conformance", "/runaway/vc-conformance"] {
        let refused = agent.copy_file(&file(path), fixture.deadline()).await;
        assert!(matches!(refused, Err(AgentError::Refused { .. })), "{path}: {refused:?}");
    }
}

/// Directories and links are made; a file is not written through a link that leads out of `/run`.
///
/// # Panics
/// When the obligation is not met.
pub async fn no_file_is_written_through_a_link(agent: &impl Agent, fixture: &impl Fixture) {
    let directory =
        CopyFile { content: FileContent::Directory, mode: 0o755, ..file(&format!("{SHARED}/links")) };
    agent.copy_file(&directory, fixture.deadline()).await.expect("the directory is made");
    let link =
        CopyFile { content: FileContent::Symlink { target: "/etc" }, ..file(&format!("{SHARED}/links/out")) };
    agent.copy_file(&link, fixture.deadline()).await.expect("the link is made");
    let through = file(&format!("{SHARED}/links/out/vc-conformance"));
    let refused = agent.copy_file(&through, fixture.deadline()).await;
    assert!(matches!(refused, Err(AgentError::Refused { .. })), "{refused:?}");
}

/// An ephemeral storage has the size that it was given, and another once it is updated.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_ephemeral_mount_can_be_resized(agent: &impl Agent, fixture: &impl Fixture) {
    let at = GuestPath::new("/run/kata-containers/sandbox/ephemeral/conformance").expect("a path");
    let mut storage = Storage::new(StorageDriver::Ephemeral, "tmpfs", "tmpfs", at.clone());
    storage.options = vec!["size=1048576".to_owned()];
    let mut request = fixture.container(&container_id("ephemeral"), Workload::Waits);
    request.storages.push(storage.clone());
    let init = running_as(agent, fixture, &request).await;
    let stats = agent.volume_stats(&at, fixture.deadline()).await.expect("the volume is known");
    let bytes = stats.bytes.expect("its size is told");
    assert_eq!(bytes.total, 1 << 20, "{stats:?}");
    assert!(bytes.used + bytes.available <= bytes.total, "{stats:?}");
    storage.options = vec!["size=2097152".to_owned()];
    let updated = agent.update_ephemeral_mounts(&[storage.clone()], fixture.deadline()).await;
    updated.expect("the mount is updated");
    let stats = agent.volume_stats(&at, fixture.deadline()).await.expect("the volume is known");
    assert_eq!(stats.bytes.expect("its size is told").total, 2 << 20);
    remove(agent, fixture, &init).await;
    let gone = agent.update_ephemeral_mounts(&[storage], fixture.deadline()).await;
    assert!(matches!(gone, Err(AgentError::Refused { .. })), "{gone:?}");
}

/// A volume that is not there has no figures and does not grow.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_unknown_volume_is_refused(agent: &impl Agent, fixture: &impl Fixture) {
    let nowhere = GuestPath::new("/run/kata-containers/no-such-volume").expect("a path");
    let stats = agent.volume_stats(&nowhere, fixture.deadline()).await;
    assert!(matches!(stats, Err(AgentError::Refused { .. })), "{stats:?}");
    let resized = agent.resize_volume(&nowhere, 1 << 30, fixture.deadline()).await;
    assert!(matches!(resized, Err(AgentError::Refused { .. })), "{resized:?}");
}

/// There may be nothing stale among the shares.
///
/// # Panics
/// When the obligation is not met.
pub async fn stale_shares_are_removed(agent: &impl Agent, fixture: &impl Fixture) {
    agent.remove_stale_shares(fixture.deadline()).await.expect("nothing is stale");
}

/// One piece of a file at `path`.
fn file(path: &str) -> CopyFile<'static> {
    CopyFile {
        path: GuestPath::new(path).expect("a path"),
        content: FileContent::Regular { size: 1, offset: 0, data: b"x" },
        mode: 0o644,
        directory_mode: 0o755,
        uid: 0,
        gid: 0,
    }
}

/// The file at `path` as a container sees it that it is bound into.
async fn bound(agent: &impl Agent, fixture: &impl Fixture, path: &GuestPath) -> Vec<u8> {
    let mut request = fixture.container(&container_id("bound"), Workload::PrintsFile);
    bind(&mut request, path);
    let init = running_as(agent, fixture, &request).await;
    let (stdout, _) = drain(agent, &init).await;
    remove(agent, fixture, &init).await;
    stdout
}
