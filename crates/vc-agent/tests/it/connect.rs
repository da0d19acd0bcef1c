//! Reaching an agent: what a booting, absent, silent or nonsensical peer looks like.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vc_agent::{AgentError, Connect, Connector, Guest};
use vc_types::{AgentAddress, Deadline, HostPath, VsockPort};

use crate::peer::{Peer, chain, generous};

fn hybrid(peer: &Peer) -> AgentAddress {
    AgentAddress::HybridVsock { socket: peer.socket(), port: VsockPort::AGENT }
}

fn short() -> Deadline {
    Deadline::after(Duration::from_millis(300))
}

/// Takes the line `CONNECT 1024` as the vsock device does.
async fn take_connect(stream: &mut tokio::net::UnixStream) {
    let mut line = [0; 13];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"CONNECT 1024\n");
}

#[tokio::test]
async fn a_hybrid_socket_is_tried_until_the_guest_listens() {
    let peer = Peer::new();
    let address = hybrid(&peer);
    let device = async {
        for attempt in 0..5 {
            let mut connection = peer.accept().await;
            if attempt % 2 == 0 {
                take_connect(&mut connection.0).await;
            }
        }
        let mut calls = peer.accept().await;
        take_connect(&mut calls.0).await;
        for byte in b"OK 1073741824\n" {
            calls.raw(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        calls.answer_check().await;
        let mut streams = peer.accept().await;
        take_connect(&mut streams.0).await;
        streams.raw(b"OK 1073741825\n").await;
        calls.answer_check().await;
        (calls, streams)
    };
    let host = async {
        let client = Connector::at_once().connect(&address, generous()).await.unwrap();
        client.check(generous()).await.unwrap();
        client
    };
    let (_client, _connections) = tokio::join!(host, device);
}

#[tokio::test]
async fn nobody_speaks_to_an_agent_before_it_has_announced_itself() {
    let peer = Peer::new();
    let address = hybrid(&peer);
    let mut announcements = peer.socket().as_path().as_os_str().to_owned();
    announcements.push("_1027");
    let guest = async {
        let early = tokio::time::timeout(Duration::from_millis(300), peer.accept()).await;
        assert!(early.is_err(), "somebody connected before the announcement");
        let _announcement = tokio::net::UnixStream::connect(&announcements).await.unwrap();
        let mut calls = peer.accept().await;
        take_connect(&mut calls.0).await;
        calls.raw(b"OK 1\n").await;
        calls.answer_check().await;
        let mut streams = peer.accept().await;
        take_connect(&mut streams.0).await;
        streams.raw(b"OK 2\n").await;
        (calls, streams)
    };
    let connector = Connector::default();
    let (client, _connections) = tokio::join!(connector.connect(&address, generous()), guest);
    client.unwrap();
    assert!(!std::path::Path::new(&announcements).exists());
}

#[tokio::test]
async fn a_guest_that_dies_before_its_health_is_known_is_tried_again() {
    let peer = Peer::new();
    let address = peer.address();
    let guest = async {
        drop(peer.accept().await.request().await);
        let mut calls = peer.accept().await;
        calls.answer_check().await;
        // The second connection ends at once; the first then counts for nothing either.
        (calls, peer.accept().await)
    };
    let connector = Connector::at_once();
    let (client, _connections) = tokio::join!(connector.connect(&address, generous()), guest);
    client.unwrap();
}

#[tokio::test]
async fn an_agent_that_never_comes_is_unreachable_with_the_reason() {
    let nowhere = tempfile::tempdir().unwrap();
    let socket = HostPath::new(nowhere.path().join("none")).unwrap();
    for address in [
        AgentAddress::Unix { socket: socket.clone() },
        AgentAddress::HybridVsock { socket, port: VsockPort::AGENT },
    ] {
        let error = Connector::at_once().connect(&address, short()).await.unwrap_err();
        let AgentError::Unreachable { waited, last, .. } = &error else { panic!("{error:?}") };
        assert_eq!(last.kind(), ErrorKind::NotFound);
        assert!((Duration::from_millis(250)..Duration::from_secs(5)).contains(waited), "{waited:?}");
        assert!(chain(&error).contains("/none"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn silence_is_unreachable_at_the_deadline() {
    let peer = Peer::new();
    for address in [hybrid(&peer), peer.address()] {
        let start = Instant::now();
        let error = Connector::at_once().connect(&address, short()).await.unwrap_err();
        let AgentError::Unreachable { last, .. } = &error else { panic!("{error:?}") };
        assert_eq!(last.kind(), ErrorKind::TimedOut, "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn what_no_waiting_mends_is_told_at_once() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"OK \n", b"OK x\n", b"\n", &[b'O'; 1 << 16]] {
        let peer = Peer::new();
        let address = hybrid(&peer);
        let nonsense = async {
            let mut connection = peer.accept().await;
            take_connect(&mut connection.0).await;
            let _ = connection.0.write_all(answer).await;
            connection
        };
        let connector = Connector::at_once();
        let (error, _) = tokio::join!(connector.connect(&address, generous()), nonsense);
        let error = error.unwrap_err();
        assert!(
            matches!(&error, AgentError::Unreachable { last, .. } if last.kind() == ErrorKind::InvalidData)
        );
        assert!(chain(&error).contains("no vsock device"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_told_at_once() {
    let socket = HostPath::new(format!("/{}", "x".repeat(200))).unwrap();
    let error = Connector::at_once().connect(&AgentAddress::Unix { socket }, generous()).await.unwrap_err();
    assert!(matches!(&error, AgentError::Unreachable { last, .. } if last.kind() == ErrorKind::InvalidInput));
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_retried_no_longer_than_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let address = AgentAddress::Unix { socket: HostPath::new(path).unwrap() };
    let error = Connector::at_once().connect(&address, short()).await.unwrap_err();
    let refused =
        matches!(&error, AgentError::Unreachable { last, .. } if last.kind() == ErrorKind::ConnectionRefused);
    assert!(refused, "{error:?}");
}
