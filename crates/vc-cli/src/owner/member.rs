//! Another container in the machine: what `vc create` asks for a pod, and stays for by a process of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use vc_agent::{Signal, TerminalSize};
use vc_container::{Cause, Container, OperationError};

use super::life::{End, KILLED, Life, failed, reason};
use super::make::{self, Made};
use super::orders::Member;
use super::pod::Pod;
use super::{exec, serve};
use crate::failure::Failure;
use crate::oci::protocol::{Reply, Word};
use crate::oci::record::Status;
use crate::oci::talk::{receive, send};
use crate::signals;

/// From one attempt to take a container out of the machine to the next.
const RETRY: Duration = Duration::from_millis(50);

/// What a conversation about a container comes to. It is named since the container has conversations of its own.
type Served = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Makes the container, serves it to its end, and tells the command how it ended.
pub(super) fn serve(stream: UnixStream, pod: Arc<Pod>, member: Member, files: Vec<OwnedFd>) -> Served {
    Box::pin(async move {
        let _presence = pod.enter();
        let terminal = member.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
        let Some(streams) = exec::streams(terminal, files) else {
            return send(&stream, &failed(Failure::message("the container's streams did not come along")))
                .await;
        };
        match make::add(&pod, member, streams).await {
            Ok(made) => {
                let code = live(&stream, &pod, made).await;
                send(&stream, &Reply::Exited(code)).await
            }
            Err(failure) => send(&stream, &failed(failure)).await,
        }
    })
}

/// Serves the container to its end; gives its exit code.
async fn live(stream: &UnixStream, pod: &Arc<Pod>, made: Made) -> u8 {
    let Made { container, record, dir, output } = made;
    let (life, mut ends) = Life::new(container, pod.sandbox.clone(), record, dir.clone());
    let life = Arc::new(life);
    let ready = async {
        let listener = serve::listen(&dir)?;
        send(stream, &Reply::Started).await.map(|()| listener)
    };
    let end = match ready.await {
        Ok(listener) => {
            tokio::select! {
                end = serve::watch(life.clone(), output) => end,
                Some(end) = ends.recv() => end,
                end = serve::accept(listener, life.clone(), pod.clone()) => end,
                end = hear(stream, &life) => end,
            }
        }
        Err(error) => End::Lost(format!("whoever asked for the container could not be told: {error}")),
    };
    end.log();
    leave(&life.container).await;
    if let Err(failure) = life.go(Status::Stopped, Some(end.code())) {
        tracing::error!("{}", failure.for_engines());
    }
    end.code()
}

/// Takes the container out of the machine, which goes on; once what is being done to it has ended, which has a deadline.
pub(super) async fn leave(container: &Container) {
    let left = loop {
        match container.stop().await {
            Ok(left) => break left,
            Err(OperationError { cause: Cause::Busy, .. }) => tokio::time::sleep(RETRY).await,
            Err(error) => {
                tracing::debug!(container = %container.id(), cause = reason(&error), "it is not stopped");
                break error.left;
            }
        }
    };
    if !left.is_empty() {
        tracing::error!("{}", Failure::message("a container did not go away").with_left(&left).for_engines());
    }
    if let Err(error) = container.delete().await {
        tracing::debug!(container = %container.id(), cause = reason(&error), "it is not forgotten");
    }
}

/// Does what the process says that stays with the container, until it goes away.
async fn hear(stream: &UnixStream, life: &Arc<Life>) -> End {
    loop {
        let word = match receive::<Word>(stream).await {
            Ok((word, _)) => word,
            Err(error) => {
                tracing::debug!(%error, "nobody stays with the container any more");
                return End::Ended(KILLED);
            }
        };
        match word {
            Word::Signal(number) if signals::ends(number.into()) && life.status() == Status::Created => {
                return End::Ended(128 + number);
            }
            Word::Signal(number) => match Signal::new(number.into()) {
                Ok(signal) => serve::pass_on(life, signal),
                Err(error) => tracing::warn!(%error, "a signal was not passed on"),
            },
            Word::Resize { rows, columns } => serve::resize(life, TerminalSize { rows, columns }),
        }
    }
}
