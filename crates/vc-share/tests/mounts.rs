//! Shared directories on real mounts, as root.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vc_share::{Bind, Server, ServerConfig, ServerKind, ShareError, ShareName, SharedDir, find_virtiofsd};
use vc_tests::Mounted;
use vc_types::{Deadline, HostPath};

/// A shared directory, and a directory of the host with a file, a mount and a file in that.
struct World {
    directory: SharedDir,
    // Before the directory that it is in.
    _mounted: Mounted,
    base: TempDir,
}

impl World {
    fn new() -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let base = tempfile::Builder::new().prefix("vc-share-").tempdir().unwrap();
        let source = base.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "of the host\n").unwrap();
        chown(source.join("file"), Some(1234), Some(5678)).unwrap();
        let mut mounted = Mounted::default();
        mounted.tmpfs(&source.join("below"), "size=64k");
        fs::write(source.join("below/file"), "of a mount\n").unwrap();
        let directory = SharedDir::create(&path(base.path().join("share"))).unwrap();
        Some(Self { directory, _mounted: mounted, base })
    }

    fn source(&self) -> PathBuf {
        self.base.path().join("source")
    }

    fn bind(&self, name_: &str) -> Bind {
        Bind::new(name(name_), path(self.source()))
    }

    /// Where a server finds a name.
    fn served(&self, name: &str) -> PathBuf {
        self.directory.served().as_path().join(name)
    }

    /// Where a name is mounted.
    fn mounts(&self, name: &str) -> PathBuf {
        self.base.path().join("share/mounts").join(name)
    }

    /// Everything of the host is as it was.
    #[track_caller]
    fn assert_source(&self) {
        assert_eq!(fs::read_to_string(self.source().join("file")).unwrap(), "of the host\n");
        assert_eq!(fs::read_to_string(self.source().join("below/file")).unwrap(), "of a mount\n");
        let stat = self.source().join("file").metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1234, 5678));
    }

    /// Nothing of the shared directory is left.
    #[track_caller]
    fn assert_gone(&self) {
        let share = self.base.path().join("share");
        assert!(!share.exists(), "{} is left", share.display());
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<_> = table.lines().filter(|line| line.contains(share.to_str().unwrap())).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path).unwrap()
}

fn name(text: &str) -> ShareName {
    text.parse().unwrap()
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

#[test]
fn what_is_bound_is_served_and_nothing_else_can_be_made_beside_it() {
    let Some(mut world) = World::new() else { return };
    let mode = world.base.path().join("share").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    world.directory.bind(&world.bind("data")).unwrap();
    let served = world.served("data");
    assert_eq!(fs::read_to_string(served.join("file")).unwrap(), "of the host\n");
    assert_eq!(served.join("file").metadata().unwrap().uid(), 1234);
    assert_eq!(fs::read_to_string(served.join("below/file")).unwrap(), "of a mount\n", "recursive");
    fs::write(served.join("new"), "written").unwrap();
    assert_eq!(fs::read_to_string(world.source().join("new")).unwrap(), "written");
    let beside = fs::write(world.served("beside"), "").unwrap_err();
    assert_eq!(beside.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(fs::remove_dir(&served).is_err());
    world.directory.remove().unwrap();
    world.directory.remove().unwrap();
    world.assert_gone();
    world.assert_source();
}

#[test]
fn read_only_is_so_below_every_mount_and_only_there() {
    let Some(mut world) = World::new() else { return };
    world.directory.bind(&Bind { read_only: true, ..world.bind("data") }).unwrap();
    for file in ["file", "below/file"] {
        let served = world.served("data").join(file);
        assert_eq!(fs::write(served, "x").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let in_mounts = world.mounts("data").join(file);
        assert_eq!(fs::write(in_mounts, "x").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert!(File::options().write(true).open(world.source().join(file)).is_ok());
    }
    world.directory.remove().unwrap();
    world.assert_source();
}

#[test]
fn without_recursion_mounts_below_do_not_come_along() {
    let Some(mut world) = World::new() else { return };
    world.directory.bind(&Bind { recursive: false, ..world.bind("data") }).unwrap();
    assert!(world.served("data/file").exists() && !world.served("data/below/file").exists());
    // A file has a place that is a file.
    let file = Bind::new(name("hosts"), path(world.source().join("file")));
    world.directory.bind(&file).unwrap();
    assert_eq!(fs::read_to_string(world.served("hosts")).unwrap(), "of the host\n");
    let names: Vec<_> = world.directory.names().map(ToString::to_string).collect();
    assert_eq!(names, ["data", "hosts"]);
    world.directory.remove().unwrap();
    world.assert_gone();
    world.assert_source();
}

#[test]
fn later_mounts_of_the_host_are_seen_where_that_was_asked_for() {
    let Some(mut world) = World::new() else { return };
    // Propagation needs a mount that is shared.
    let mut mounted = Mounted::default();
    let shared = world.base.path().join("propagated");
    mounted.tmpfs(&shared, "size=64k");
    let made = Command::new("mount").arg("--make-shared").arg(&shared).status().unwrap();
    assert!(made.success());
    for (share, follow) in [("follows", true), ("stays", false)] {
        world.directory.bind(&Bind { follow, ..Bind::new(name(share), path(&shared)) }).unwrap();
    }
    mounted.tmpfs(&shared.join("later"), "size=64k");
    fs::write(shared.join("later/file"), "later").unwrap();
    assert_eq!(fs::read_to_string(world.served("follows/later/file")).unwrap(), "later");
    assert!(!world.served("stays/later/file").exists());
    world.directory.remove().unwrap();
    assert_eq!(fs::read_to_string(shared.join("later/file")).unwrap(), "later", "nothing travels back");
    world.assert_gone();
}

/// virtiofsd has a mount namespace of its own, made before anything is bound.
#[test]
fn what_is_bound_later_is_seen_in_another_mount_namespace() {
    let Some(mut world) = World::new() else { return };
    let fifo = world.base.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("read line < {}; cat {}/late/file", fifo.display(), world.directory.served());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c", &script]);
    let other = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    // Opening waits until the other side reads, which is then in its namespace.
    let mut signal = File::options().write(true).open(&fifo).unwrap();
    world.directory.bind(&world.bind("late")).unwrap();
    std::io::Write::write_all(&mut signal, b"go\n").unwrap();
    drop(signal);
    let output = other.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "of the host\n");
    world.directory.remove().unwrap();
    world.assert_gone();
}

#[test]
fn a_bind_may_be_repeated_and_a_name_is_given_once() {
    let Some(mut world) = World::new() else { return };
    let bind = world.bind("data");
    for _ in 0..3 {
        world.directory.bind(&bind).unwrap();
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = format!(" {} ", world.mounts("data").display());
    assert_eq!(table.lines().filter(|line| line.contains(&at)).count(), 1);
    let other = Bind { read_only: true, ..bind.clone() };
    assert!(matches!(world.directory.bind(&other), Err(ShareError::Taken(_))));
    let gone = Bind::new(name("gone"), path("/nonexistent/source"));
    assert!(matches!(world.directory.bind(&gone), Err(ShareError::System { .. })));
    assert!(!world.mounts("gone").exists(), "nothing is left of it");
    world.directory.unbind(&bind.name).unwrap();
    world.directory.unbind(&bind.name).unwrap();
    world.directory.bind(&other).unwrap();
    world.directory.remove().unwrap();
    world.assert_source();
}

#[test]
fn what_the_guest_still_uses_does_not_hold_up_the_removal() {
    let Some(mut world) = World::new() else { return };
    world.directory.bind(&world.bind("data")).unwrap();
    let held = File::open(world.served("data/below/file")).unwrap();
    world.directory.place(&name("watchable/data"), true).unwrap();
    world.directory.remove().unwrap();
    world.assert_gone();
    world.assert_source();
    assert_eq!(std::io::read_to_string(&held).unwrap(), "of a mount\n", "it has it until it lets go");
}

/// Whoever can write to a directory of the host can put a link there after it was looked at.
#[test]
fn a_source_that_leads_over_a_link_is_refused() {
    let Some(mut world) = World::new() else { return };
    let link = world.base.path().join("link");
    symlink(world.source(), &link).unwrap();
    for source in [link.clone(), link.join("below")] {
        let led = world.directory.bind(&Bind::new(name("led"), path(&source))).unwrap_err();
        assert!(matches!(&led, ShareError::SourceLed(led) if led.as_path() == source), "{led}");
        assert!(!world.mounts("led").exists(), "nothing is left of it");
    }
    world.directory.remove().unwrap();
    world.assert_gone();
    world.assert_source();
}

/// The seed looks for a link with a stat that follows it, and so never finds one.
#[test]
fn l33_a_link_in_the_place_of_a_mount_is_not_followed() {
    let Some(mut world) = World::new() else { return };
    let bind = world.bind("data");
    world.directory.bind(&bind).unwrap();
    assert!(
        Command::new("umount")
            .args(["--lazy", "--recursive"])
            .arg(world.mounts("data"))
            .status()
            .unwrap()
            .success()
    );
    fs::remove_dir(world.mounts("data")).unwrap();
    symlink(world.source(), world.mounts("data")).unwrap();
    let led = world.directory.unbind(&bind.name).unwrap_err();
    assert!(matches!(led, ShareError::Led(_)), "{led}");
    world.assert_source();
    let errors = world.directory.remove().unwrap_err();
    assert_eq!(errors.len(), 1);
    fs::remove_file(world.mounts("data")).unwrap();
    world.directory.remove().unwrap();
    world.assert_gone();
    // Nor is a source bound where a link is.
    let mut again = SharedDir::create(&path(world.base.path().join("share"))).unwrap();
    symlink(world.source(), world.mounts("data")).unwrap();
    assert!(matches!(again.bind(&bind), Err(ShareError::Taken(_))));
    fs::remove_file(world.mounts("data")).unwrap();
    again.remove().unwrap();
    world.assert_source();
}

/// The seed gives up at the first failure, and its second pass fails at what the first has done.
#[test]
fn l34_one_failure_holds_up_no_other_and_a_second_pass_goes_on() {
    let Some(mut world) = World::new() else { return };
    for share in ["a", "b", "c"] {
        world.directory.bind(&world.bind(share)).unwrap();
    }
    // Somebody has put a file where only a place for a mount was.
    assert!(
        Command::new("umount")
            .args(["--lazy", "--recursive"])
            .arg(world.mounts("b"))
            .status()
            .unwrap()
            .success()
    );
    fs::write(world.mounts("b").join("theirs"), "theirs").unwrap();
    let errors = world.directory.remove().unwrap_err();
    assert!(matches!(&errors[..], [ShareError::NotEmpty(name)] if name.as_str() == "b"), "{errors:?}");
    assert!(!world.mounts("a").exists() && !world.mounts("c").exists());
    assert_eq!(fs::read_to_string(world.mounts("b").join("theirs")).unwrap(), "theirs", "it is left");
    fs::remove_file(world.mounts("b").join("theirs")).unwrap();
    world.directory.remove().unwrap();
    world.assert_gone();
    world.assert_source();
}

#[test]
fn a_dropped_directory_takes_its_mounts_along_and_leaves_the_sources() {
    let Some(World { mut directory, base, _mounted }) = World::new() else { return };
    let source = base.path().join("source");
    directory.bind(&Bind::new(name("data"), path(&source))).unwrap();
    drop(directory);
    assert!(!base.path().join("share").exists());
    assert_eq!(fs::read_to_string(source.join("below/file")).unwrap(), "of a mount\n");
}

/// What a process that was killed has made, another one knows by the names that were written down.
#[test]
fn a_directory_is_taken_over_at_any_stage_of_its_making() {
    let Some(mut world) = World::new() else { return };
    let names = || ["data", "watchable/data", "never-made", "watchable/never-made"].map(name);
    let root = path(world.base.path().join("share"));
    world.directory.bind(&world.bind("data")).unwrap();
    world.directory.place(&name("watchable/data"), true).unwrap();
    world.directory.let_go();
    let mut adopted = SharedDir::adopt(&root, names()).unwrap().unwrap();
    assert_eq!(adopted.served(), world.directory.served());
    assert!(matches!(adopted.bind(&world.bind("data")), Err(ShareError::Taken(_))));
    adopted.bind(&world.bind("later")).unwrap();
    assert_eq!(fs::read_to_string(world.served("later/file")).unwrap(), "of the host\n");
    adopted.unbind(&name("data")).unwrap();
    assert!(!world.mounts("data").exists());
    for taken in ["watchable/data", "watchable/never-made"] {
        adopted.unbind(&name(taken)).unwrap();
    }
    assert!(!world.mounts("watchable").exists());
    adopted.place(&name("watchable/later"), false).unwrap();
    adopted.remove().unwrap();
    world.assert_gone();
    world.assert_source();
    // Killed while it was made: between any two of its steps.
    for made in [&[][..], &["mounts"], &["mounts", "shared"]] {
        fs::create_dir(&root).unwrap();
        made.iter().for_each(|name| fs::create_dir(root.as_path().join(name)).unwrap());
        assert!(SharedDir::adopt(&root, names()).unwrap().is_none());
        world.assert_gone();
    }
    fs::create_dir_all(root.as_path().join("shared")).unwrap();
    fs::create_dir(root.as_path().join("mounts")).unwrap();
    let mounts = world.base.path().join("share/mounts");
    assert!(Command::new("mount").arg("--bind").args([&mounts, &mounts]).status().unwrap().success());
    assert!(SharedDir::adopt(&root, names()).unwrap().is_none());
    world.assert_gone();
}

#[test]
fn a_directory_that_is_there_is_left_alone() {
    let Some(world) = World::new() else { return };
    let taken = SharedDir::create(&path(world.source())).unwrap_err();
    assert!(matches!(taken, ShareError::System { .. }), "{taken}");
    world.assert_source();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_server_is_noticed() {
    let Some(mut world) = World::new() else { return };
    if find_virtiofsd().is_err() {
        return vc_tests::skip("no virtiofsd is installed");
    }
    let socket = path(world.base.path().join("fs.sock"));
    let served = world.directory.served();
    let config = ServerConfig::new(ServerKind::Virtiofsd);
    let start = || Server::start(&config, &served, &socket, deadline());
    let server = start().await.unwrap();
    assert!(start().await.is_err(), "the socket is taken");
    // It serves one connection, and ends when that is closed.
    let connection = std::os::unix::net::UnixStream::connect(socket.as_path()).unwrap();
    drop(connection);
    let end = tokio::time::timeout(deadline().remaining(), server.exited()).await.unwrap();
    assert_eq!(server.stop(deadline()).await.unwrap(), end, "it is told again");
    assert!(!socket.as_path().exists());
    let killed = start().await.unwrap();
    drop(server);
    assert!(socket.as_path().exists(), "it is that of another server by now");
    let end = killed.stop(deadline()).await.unwrap();
    assert_eq!(end.to_string().split(':').next(), Some("virtiofsd was ended by signal 9"));
    assert_eq!(killed.identity(), None);
    drop(killed);
    // One that outlives its owner can be taken over, and is told from others.
    let outliving = ServerConfig { die_with_parent: false, ..ServerConfig::new(ServerKind::Virtiofsd) };
    let server = Server::start(&outliving, &served, &socket, deadline()).await.unwrap();
    let known = server.identity().unwrap();
    server.let_go();
    drop(server);
    let other = vc_types::ProcessIdentity { started: known.started + 1, ..known };
    let other = Server::adopt(ServerKind::Virtiofsd, other, &socket).unwrap();
    assert!(other.ended().is_some());
    other.let_go();
    let adopted = Server::adopt(ServerKind::Virtiofsd, known, &socket).unwrap();
    assert!(adopted.ended().is_none());
    adopted.stop(deadline()).await.unwrap();
    assert!(vc_types::ProcessIdentity::of(known.pid).is_none_or(|other| other != known));
    // One that nobody knows and nobody has connected to ends as well.
    let unknown = Server::start(&outliving, &served, &socket, deadline()).await.unwrap();
    unknown.let_go();
    Server::end_unknown(ServerKind::Virtiofsd, &socket, deadline()).await;
    tokio::time::timeout(deadline().remaining(), unknown.exited()).await.unwrap();
    Server::end_unknown(ServerKind::Virtiofsd, &socket, deadline()).await;
    assert!(!socket.as_path().exists());
    world.directory.remove().unwrap();
    world.assert_gone();
}

#[tokio::test]
async fn what_is_no_virtiofsd_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (served, socket) = (path(directory.path()), path(directory.path().join("fs.sock")));
    for program in ["/bin/true", "/nonexistent/virtiofsd"] {
        let config =
            ServerConfig { program: Some(program.into()), ..ServerConfig::new(ServerKind::Virtiofsd) };
        assert!(Server::start(&config, &served, &socket, deadline()).await.is_err(), "{program}");
        assert!(!socket.as_path().exists());
    }
}
