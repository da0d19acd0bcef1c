//! nydusd's API: one suite for the double and for the real one, and what an answer may be that is none.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vc_share::nydus::fake::{FakeNydusd, NydusFault};
use vc_share::{NydusApi, NydusError, Server, ServerConfig, ServerError, ServerKind};
use vc_tests::{Nydus, Rafs};
use vc_types::{ContainerId, Deadline, HostPath, ProcessIdentity};

/// Ample for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path).unwrap()
}

fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

/// A directory with a tree and another directory in it.
fn world() -> TempDir {
    let base = tempfile::Builder::new().prefix("vc-nydus-").tempdir().unwrap();
    fs::create_dir(base.path().join("tree")).unwrap();
    fs::write(base.path().join("tree/file"), "of an image\n").unwrap();
    fs::create_dir(base.path().join("shared")).unwrap();
    base
}

/// What every nydusd does that serves `shared`, and nothing else yet.
async fn conforms(api: &NydusApi, shared: &HostPath, image: &Rafs) {
    let mounts = async || api.info(deadline()).await.unwrap().mounts.into_iter().collect::<Vec<_>>();
    let directory = ("/containers".to_owned(), "PassthroughFs".to_owned());
    let rafs = |name: &str| (format!("/rafs/{name}/lowerdir"), "Rafs".to_owned());
    assert_eq!(api.info(deadline()).await.unwrap().state, "RUNNING");
    assert_eq!(mounts().await, std::slice::from_ref(&directory));
    let again = api.mount_shared(shared, deadline()).await.unwrap_err();
    assert!(matches!(again, NydusError::Refused { status: 500, .. }), "{again}");

    // An id may have a sign that means another in an address.
    let (web, job, bootstrap) = (id("web"), id("job+1.2_3"), path(&image.bootstrap));
    let mount = async |id: &ContainerId| api.mount_rafs((id, 0), &bootstrap, &image.config, deadline()).await;
    mount(&web).await.unwrap();
    mount(&job).await.unwrap();
    let all = [directory.clone(), rafs("job+1.2_3"), rafs("web")];
    assert_eq!(mounts().await, all);
    assert!(matches!(mount(&web).await, Err(NydusError::Refused { .. })), "it is there already");
    let missing = path(image.bootstrap.with_file_name("missing"));
    let refused = api.mount_rafs((&id("other"), 0), &missing, &image.config, deadline()).await.unwrap_err();
    assert!(refused.to_string().contains("missing"), "{refused}");
    let refused = api.mount_rafs((&id("other"), 0), &bootstrap, "no JSON", deadline()).await.unwrap_err();
    assert!(
        matches!(&refused, NydusError::Refused { message, .. } if !message.contains("UNDEFINED")),
        "{refused}"
    );
    assert_eq!(mounts().await, all);

    for name in [&web, &web, &id("other")] {
        api.unmount_rafs((name, 0), deadline()).await.unwrap();
    }
    assert_eq!(mounts().await, [directory.clone(), rafs("job+1.2_3")]);
    api.mount_rafs((&web, 7), &bootstrap, &image.config, deadline()).await.unwrap();
    assert_eq!(mounts().await[2].0, "/rafs/web/lowerdir-7");
    for (name, number) in [(&web, 7), (&job, 0)] {
        api.unmount_rafs((name, number), deadline()).await.unwrap();
    }
    assert_eq!(mounts().await, [directory]);
}

#[tokio::test]
async fn the_double_conforms() {
    let base = world();
    let bootstrap = base.path().join("bootstrap");
    fs::write(&bootstrap, "").unwrap();
    let socket = path(base.path().join("fs.api"));
    let _fake = FakeNydusd::listen(&socket).unwrap();
    let (api, shared) = (NydusApi::new(socket), path(base.path().join("shared")));
    api.mount_shared(&shared, deadline()).await.unwrap();
    conforms(&api, &shared, &Rafs { bootstrap, config: "{}".into() }).await;
}

#[tokio::test]
async fn the_real_one_conforms_and_ends_when_it_is_told() {
    let Some(nydus) = Nydus::find() else { return };
    let base = world();
    let image = nydus.image(&base.path().join("tree"), &base.path().join("image"));
    fs::create_dir(base.path().join("run")).unwrap();
    let (shared, socket) = (path(base.path().join("shared")), path(base.path().join("run/fs.sock")));
    let mut config = ServerConfig::new(ServerKind::Nydusd);
    config.program = Some(nydus.nydusd.clone());
    config.die_with_parent = false;
    let start = || Server::start(&config, &shared, &socket, deadline());
    let left = || fs::read_dir(base.path().join("run")).unwrap().count();

    let server = start().await.unwrap();
    assert!(start().await.is_err(), "the socket is taken");
    conforms(server.nydus().unwrap(), &shared, &image).await;
    let known = server.identity().unwrap();
    assert_limited(known.pid);
    // One that outlives its owner can be taken over.
    server.let_go();
    drop(server);
    let adopted = Server::adopt(ServerKind::Nydusd, known, &socket).unwrap();
    assert_eq!(adopted.nydus().unwrap().info(deadline()).await.unwrap().state, "RUNNING");
    let end = adopted.stop(deadline()).await.unwrap();
    assert_eq!((end.to_string().as_str(), left()), ("nydusd has ended", 0));
    assert_eq!(ProcessIdentity::of(known.pid).filter(|other| *other == known), None);
    let gone = adopted.nydus().unwrap().info(deadline()).await.unwrap_err();
    assert!(matches!(gone, NydusError::Unreachable { .. }), "{gone}");
    // One that nobody knows ends as well.
    let unknown = start().await.unwrap();
    unknown.let_go();
    for _ in 0..2 {
        Server::end_unknown(ServerKind::Nydusd, &socket, deadline()).await;
    }
    tokio::time::timeout(PATIENCE, unknown.exited()).await.unwrap();
    assert_eq!(left(), 0);
    // One that cannot serve says why.
    let nothing = path(base.path().join("nothing"));
    let refused = Server::start(&config, &nothing, &socket, deadline()).await.unwrap_err();
    assert!(matches!(refused, ServerError::Nydus(NydusError::Refused { .. })), "{refused:?}");
    assert_eq!(left(), 0);
}

/// It may serve files, and little else.
fn assert_limited(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(field("NoNewPrivs:"), "1");
    let effective = u64::from_str_radix(field("CapEff:"), 16).unwrap();
    // To load kernel modules, to have any network, to trace any process (linux/capability.h).
    for dropped in [16, 12, 19] {
        assert_eq!(effective >> dropped & 1, 0, "{effective:x}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_at_once_or_in_time() {
    let base = world();
    let socket = path(base.path().join("fs.api"));
    let fake = FakeNydusd::listen(&socket).unwrap();
    let api = NydusApi::new(socket);
    for fault in NydusFault::ALL {
        let keeps_silent = matches!(fault, NydusFault::Hang | NydusFault::Unanswered);
        let patience = if keeps_silent { Duration::from_millis(100) } else { PATIENCE };
        fake.fail(1, fault);
        let began = Instant::now();
        let error = api.info(Deadline::after(patience)).await.unwrap_err();
        assert!(began.elapsed() < PATIENCE, "{fault:?}");
        let text = error.to_string();
        let is_as_expected = match fault {
            NydusFault::Refuse => text == "nydusd refused to tell what it is doing (500): as planned",
            NydusFault::RefuseSilently => text.ends_with("(500): it did not say why"),
            NydusFault::Garbage | NydusFault::TooLong | NydusFault::Endless => {
                matches!(error, NydusError::Malformed { .. })
            }
            NydusFault::BreakOff => matches!(error, NydusError::Unreachable { .. }),
            NydusFault::Hang | NydusFault::Unanswered => matches!(error, NydusError::Deadline { .. }),
        };
        assert!(is_as_expected, "{fault:?}: {text}");
        assert!(fake.heal());
    }
    api.info(deadline()).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_nydusd_is_refused() {
    let base = world();
    let (shared, socket) = (path(base.path().join("shared")), path(base.path().join("fs.sock")));
    for program in ["/bin/true", "/nonexistent/nydusd"] {
        let config = ServerConfig { program: Some(program.into()), ..ServerConfig::new(ServerKind::Nydusd) };
        let refused = Server::start(&config, &shared, &socket, deadline()).await.unwrap_err();
        assert!(matches!(refused, ServerError::Ended(_) | ServerError::Run { .. }), "{refused:?}");
        assert!(!socket.as_path().exists());
    }
}
