//! A scripted peer on the other end of the stream.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::*;

pub(super) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Peer {
    stream: BufReader<UnixStream>,
}

impl Peer {
    /// A connected pair after the handshake.
    pub(super) async fn greet() -> (Self, Qmp) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut peer = Self { stream: BufReader::new(theirs) };
        peer.say(GREETING).await;
        let deadline = Deadline::after(PATIENCE);
        let (qmp, ()) = tokio::join!(Qmp::connect(ours, deadline), async {
            let id = peer.expect("qmp_capabilities").await;
            peer.reply(id, "{}").await;
        });
        (peer, qmp.unwrap())
    }

    pub(super) fn into_stream(self) -> BufReader<UnixStream> {
        self.stream
    }

    async fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn reply(&mut self, id: u64, value: &str) {
        self.say(&format!(r#"{{"return": {value}, "id": {id}}}"#)).await;
    }

    /// Reads the next command, which must be `name`; returns its id.
    async fn expect(&mut self, name: &str) -> u64 {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["execute"], name, "{line}");
        message["id"].as_u64().unwrap()
    }
}

pub(super) fn status() -> qapi::qmp::query_status {
    qapi::qmp::query_status {}
}

pub(super) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

#[tokio::test]
async fn a_late_reply_goes_to_nobody_else() {
    let (mut peer, qmp) = Peer::greet().await;
    let hasty = qmp.query(status(), Deadline::after(Duration::from_millis(20))).await;
    assert!(matches!(hasty, Err(QmpError::Deadline { command: "query-status" })), "{hasty:?}");
    let late = peer.expect("query-status").await;
    let (answer, ()) = tokio::join!(qmp.query(status(), soon()), async {
        let next = peer.expect("query-status").await;
        peer.reply(late, r#""late""#).await;
        peer.reply(next, r#""mine""#).await;
    });
    assert_eq!(answer.unwrap(), "mine");
}

#[tokio::test]
async fn replies_in_any_order_find_their_command() {
    let (mut peer, qmp) = Peer::greet().await;
    let (one, two, ()) = tokio::join!(qmp.query(status(), soon()), qmp.query(status(), soon()), async {
        let first = peer.expect("query-status").await;
        let second = peer.expect("query-status").await;
        peer.reply(second, "2").await;
        peer.say(r#"{"event": "OF_A_RELEASE_TO_COME", "timestamp": {"seconds": 1, "microseconds": 1}}"#)
            .await;
        peer.reply(77, "\"nobody asked\"").await;
        peer.reply(first, "1").await;
    });
    assert_eq!((one.unwrap(), two.unwrap()), (1.into(), 2.into()));
}

#[tokio::test]
async fn a_reply_in_single_bytes_is_whole() {
    let (mut peer, qmp) = Peer::greet().await;
    let (answer, ()) = tokio::join!(qmp.query(status(), soon()), async {
        let id = peer.expect("query-status").await;
        for byte in format!("{{\"return\": \"{}\", \"id\": {id}}}\n", "x".repeat(300)).bytes() {
            peer.stream.get_mut().write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(answer.unwrap(), "x".repeat(300));
}

#[tokio::test]
async fn an_error_keeps_its_class() {
    let (mut peer, qmp) = Peer::greet().await;
    for (class, missing) in [("DeviceNotFound", true), ("GenericError", false)] {
        let (answer, ()) = tokio::join!(qmp.query(status(), soon()), async {
            let id = peer.expect("query-status").await;
            peer.say(&format!(r#"{{"error": {{"class": "{class}", "desc": "no"}}, "id": {id}}}"#)).await;
        });
        let Err(QmpError::Refused { not_found, description, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!((not_found, description.as_str()), (missing, "no"));
    }
}

#[tokio::test]
async fn the_end_of_the_stream_ends_every_wait_at_once() {
    let (mut peer, qmp) = Peer::greet().await;
    let (one, two, ()) = tokio::join!(qmp.query(status(), soon()), qmp.query(status(), soon()), async {
        peer.expect("query-status").await;
        peer.stream.get_mut().shutdown().await.unwrap();
    });
    assert!(matches!(one, Err(QmpError::Closed { .. })), "{one:?}");
    assert!(matches!(two, Err(QmpError::Closed { .. })), "{two:?}");
    let after = qmp.query(status(), soon()).await;
    assert!(matches!(after, Err(QmpError::Closed { .. })), "{after:?}");
}

#[tokio::test]
async fn garbage_ends_the_stream_and_hangs_nobody() {
    let (mut peer, qmp) = Peer::greet().await;
    let (answer, ()) = tokio::join!(qmp.query(status(), soon()), async {
        peer.expect("query-status").await;
        peer.say("\u{1}\u{2} not json").await;
    });
    assert!(matches!(answer, Err(QmpError::Closed { .. })), "{answer:?}");
}

#[tokio::test]
async fn no_greeting_is_an_error_in_time() {
    let (ours, _silent) = UnixStream::pair().unwrap();
    let silent = Qmp::connect(ours, Deadline::after(Duration::from_millis(20))).await;
    assert!(matches!(silent, Err(QmpError::Greeting(_))), "{silent:?}");
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
    let wrong = Qmp::connect(ours, soon()).await;
    assert!(matches!(wrong, Err(QmpError::Greeting(_))), "{wrong:?}");
}

#[tokio::test]
async fn an_unplug_is_told_only_for_the_device_itself() {
    let (mut peer, qmp) = Peer::greet().await;
    let (disk, other) = ("b0".parse().unwrap(), "b1".parse().unwrap());
    let gone = qmp.expect_unplug(&disk);
    let mut stays = qmp.expect_unplug(&other);
    for data in [r#"{"path": "/machine/peripheral/b1/virtio-backend"}"#, r#"{"device": "b0", "path": "/x"}"#]
    {
        peer.say(&format!(r#"{{"event": "DEVICE_DELETED", "data": {data}}}"#)).await;
    }
    assert_eq!(gone.await.unwrap(), UnplugOutcome::Gone);
    assert!(stays.try_recv().is_err());
    peer.say(r#"{"event": "DEVICE_UNPLUG_GUEST_ERROR", "data": {"device": "b1", "path": "/x"}}"#).await;
    assert_eq!(stays.await.unwrap(), UnplugOutcome::Refused);
}

#[tokio::test]
async fn a_descriptor_travels_with_its_command() {
    let (peer, qmp) = Peer::greet().await;
    let file = tempfile::tempfile().unwrap();
    let sent = tokio::spawn({
        let file = Arc::new(file.try_clone().unwrap());
        async move {
            let command = Command::new("add-fd", serde_json::json!({"fdset-id": 3}));
            qmp.pipeline(vec![Command { file: Some(file), ..command }], soon()).await
        }
    });
    let mut stream = peer.stream.into_inner();
    stream.readable().await.unwrap();
    let mut bytes = [0; 512];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 2]);
    let received = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
        let fds: Vec<_> = message
            .cmsgs()
            .unwrap()
            .filter_map(|control| match control {
                ControlMessageOwned::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        fds
    };
    let [fd] = received[..] else { panic!("one descriptor, not {received:?}") };
    let inode = |fd: std::os::fd::RawFd| {
        let link = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
        std::os::unix::fs::MetadataExt::ino(&link)
    };
    assert_eq!(inode(fd), inode(file.as_raw_fd()));
    stream.write_all(b"{\"return\": {\"fd\": 9, \"fdset-id\": 3}, \"id\": 1}\n").await.unwrap();
    assert_eq!(sent.await.unwrap()[0].as_ref().unwrap()["fdset-id"], 3);
}
