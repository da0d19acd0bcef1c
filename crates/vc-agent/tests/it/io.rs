//! Standard streams as tokio's traits, and files copied from one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vc_agent::conformance::{Fixture, Workload};
use vc_agent::fake::FakeAgent;
use vc_agent::io::{CopyError, Output, Stdin, copy_file};
use vc_agent::{
    AgentError, Connect, Connector, Containers, CopyFile, ExitStatus, FileContent, Guest, ProcessRef,
    Processes, Streams,
};
use vc_agent_protocol::agent::{CopyFileRequest, Empty, ReadStreamRequest, ReadStreamResponse};
use vc_types::GuestPath;

use crate::fixture::FakeFixture;
use crate::peer::{Peer, generous};
use crate::served::Served;

/// A container that runs `workload`, on the fake.
async fn running(agent: &FakeAgent, workload: Workload) -> ProcessRef {
    agent.create_sandbox(&FakeFixture.sandbox(), generous()).await.unwrap();
    let request = FakeFixture.container(&"c".parse().unwrap(), workload);
    agent.create_container(&request, generous()).await.unwrap();
    agent.start_container(&request.id, generous()).await.unwrap();
    ProcessRef::init(&request.id)
}

fn stdin<A: Streams + 'static>(agent: &Arc<A>, process: &ProcessRef) -> Stdin<A> {
    Stdin::new(agent, process, Duration::from_secs(60))
}

#[tokio::test]
async fn l30_closing_stdin_leaves_the_outputs_open() {
    let model = FakeFixture::agent();
    let init = running(&model, Workload::Copies).await;
    let served = Served::new(model).await;
    let client = Arc::new(Connector::default().connect(&served.address(), generous()).await.unwrap());
    let mut input = stdin(&client, &init);
    let (mut output, mut errors) = (Output::stdout(&client, &init), Output::stderr(&client, &init));
    input.write_all(b"last words").await.unwrap();
    input.shutdown().await.unwrap();
    input.shutdown().await.unwrap();
    let (mut all, mut none) = (Vec::new(), Vec::new());
    output.read_to_end(&mut all).await.unwrap();
    errors.read_to_end(&mut none).await.unwrap();
    assert_eq!((&all[..], &none[..]), (&b"last words"[..], &b""[..]));
    assert_eq!(output.read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    assert_eq!(client.wait(&init).await.unwrap(), ExitStatus(0));
}

#[tokio::test]
async fn megabytes_pass_through_the_streams_whole() {
    let model = FakeFixture::agent();
    let init = running(&model, Workload::Copies).await;
    let served = Served::new(model).await;
    let client = Arc::new(Connector::default().connect(&served.address(), generous()).await.unwrap());
    let sent: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    let mut input = stdin(&client, &init);
    let mut output = Output::stdout(&client, &init);
    let write = async {
        input.write_all(&sent).await.unwrap();
        input.shutdown().await.unwrap();
    };
    let mut all = Vec::new();
    let (read, ()) = tokio::join!(output.read_to_end(&mut all), write);
    assert_eq!(read.unwrap(), sent.len());
    assert!(all == sent);
}

#[tokio::test]
async fn a_process_that_reads_no_more_is_a_broken_pipe_once_it_is_known() {
    let agent = Arc::new(FakeFixture::agent());
    let init = running(&agent, Workload::Waits).await;
    let mut input = stdin(&agent, &init);
    input.write_all(&vec![0; 65_536]).await.unwrap();
    input.flush().await.unwrap();
    // The pipe is full: this one is on its way.
    input.write_all(b"more").await.unwrap();
    let flushed = tokio::time::timeout(Duration::from_millis(50), input.flush()).await;
    assert!(flushed.is_err(), "nobody reads");
    agent.end(&init, ExitStatus(0));
    let error = input.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<AgentError>());
    assert!(matches!(cause, Some(AgentError::StreamClosed)), "{error:?}");
}

#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let agent = Arc::new(FakeFixture::agent());
    let init = running(&agent, Workload::Waits).await;
    let mut output = Output::stdout(&agent, &init);
    let dropped = tokio::time::timeout(Duration::from_millis(50), output.read(&mut [0; 8])).await;
    assert!(dropped.is_err());
    agent.print(&init, b"hello");
    let mut bytes = [0; 8];
    let length = output.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..length], b"hello");
}

#[tokio::test]
async fn one_read_is_ahead_and_never_two() {
    let peer = Peer::new();
    let (client, _calls, mut streams) = peer.client().await;
    let client = Arc::new(client);
    let mut output = Output::stdout(&client, &ProcessRef::init(&"c".parse().unwrap()));
    let answer = |data: &[u8]| ReadStreamResponse { data: data.to_vec(), ..Default::default() };
    let host = tokio::spawn(async move {
        let mut bytes = [0; 1];
        output.read_exact(&mut bytes).await.unwrap();
        (output, bytes)
    });
    let (first, _) = streams.expect::<ReadStreamRequest>("ReadStdout").await;
    streams.answer(first, &answer(b"ab")).await;
    let (mut output, bytes) = host.await.unwrap();
    assert_eq!(&bytes, b"a");
    // Nobody has asked for more yet.
    let (second, _) = streams.expect::<ReadStreamRequest>("ReadStdout").await;
    let ask_on = tokio::spawn(async move {
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let third = tokio::time::timeout(Duration::from_millis(100), streams.request()).await;
    assert!(third.is_err(), "a read is sent before the one before it was answered");
    streams.answer(second, &answer(b"c")).await;
    let (last, _) = streams.expect::<ReadStreamRequest>("ReadStdout").await;
    streams.answer(last, &answer(b"")).await;
    assert_eq!(ask_on.await.unwrap(), b"bc");
}

fn file() -> CopyFile<'static> {
    CopyFile {
        path: GuestPath::new("/run/kata-containers/shared/containers/f").unwrap(),
        content: FileContent::Directory,
        mode: 0o640,
        directory_mode: 0o750,
        uid: 7,
        gid: 8,
    }
}

#[tokio::test]
async fn a_file_is_copied_in_bounded_pieces() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let size = 2 * FileContent::MAX_PIECE + 5;
    let guest = async {
        let mut came = 0;
        while came < size {
            let (stream, request) = calls.expect::<CopyFileRequest>("CopyFile").await;
            assert!((1..=FileContent::MAX_PIECE).contains(&request.data.len()));
            assert_eq!(usize::try_from(request.offset), Ok(came));
            assert_eq!(usize::try_from(request.file_size), Ok(size));
            assert_eq!((request.file_mode, request.dir_mode), (0o100_640, 0o750));
            assert_eq!((request.uid, request.gid), (7, 8));
            came += request.data.len();
            calls.answer(stream, &Empty::new()).await;
        }
    };
    let mut source = tokio::io::repeat(1);
    let file = file();
    let copy = copy_file(&client, &file, u64::try_from(size).unwrap(), &mut source, generous());
    tokio::join!(copy, guest).0.unwrap();
}

#[tokio::test]
async fn a_source_that_is_short_or_a_guest_that_refuses_end_the_copy() {
    let agent = FakeAgent::new();
    let short = copy_file(&agent, &file(), 10, &mut &b"short"[..], generous()).await;
    assert!(matches!(short, Err(CopyError::Short { read: 5, size: 10, .. })), "{short:?}");
    let outside = CopyFile { path: GuestPath::new("/etc/f").unwrap(), ..file() };
    let refused = copy_file(&agent, &outside, 1, &mut &b"x"[..], generous()).await;
    assert!(
        matches!(refused, Err(CopyError::Agent { error: AgentError::Refused { .. }, .. })),
        "{refused:?}"
    );
}
