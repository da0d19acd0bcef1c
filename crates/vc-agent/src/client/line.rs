//! A connection that is made anew when it was lost.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protobuf::Message;
use tokio::sync::watch;
use tokio::time::timeout;
use vc_types::{AgentAddress, Deadline};

use super::dial::dial;
use super::fault::Fault;
use super::link::Link;
use crate::{AgentError, Call};

/// How long it may take to connect again. The guest listens already, or it is gone.
const REDIAL: Duration = Duration::from_secs(1);

/// How long nobody tries after connecting again has failed: a guest that is gone must not hold up each
/// call that is still to fail.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest request message, in bytes: ttrpc's 4 MiB less room for its envelope.
const MAX_REQUEST: usize = ttrpc::proto::MESSAGE_LENGTH_MAX - 4096;

/// Requests to one agent, over one connection at a time. Dropping it ends the connection and the
/// requests under way.
///
/// A connection that was lost is replaced before the next request. A request that was under way is
/// sent again if it may come twice; others fail, since nobody knows whether they were done.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Shared>,
    /// Nothing is ever sent: each request ends when this is dropped.
    open: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    address: AgentAddress,
    link: Mutex<Arc<Link>>,
    /// When connecting again failed last; locked while somebody does.
    failed: tokio::sync::Mutex<Option<Instant>>,
    is_over: AtomicBool,
}

impl Line {
    /// Goes on from `link`, a connection to `address`.
    pub(super) fn new(address: AgentAddress, link: Link) -> Self {
        let shared = Shared {
            address,
            link: Mutex::new(Arc::new(link)),
            failed: tokio::sync::Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), open: watch::Sender::new(()) }
    }

    /// Connects no more: the guest is about to go.
    pub(super) fn end(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }

    /// Sends `message`, the argument of `call`, and waits for the answer, until `deadline` if there is
    /// one.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer.
    pub(super) async fn ask<A: Message>(
        &self,
        call: Call,
        message: &impl Message,
        deadline: Option<Deadline>,
    ) -> Result<A, AgentError> {
        self.start(call, message, deadline).await.map_err(|fault| fault.into_error(call))
    }

    /// Starts a request at once; it goes on when the returned future is dropped: until its answer, its
    /// deadline or the end of this line.
    pub(super) fn start<A: Message, M: Message>(
        &self,
        call: Call,
        message: &M,
        deadline: Option<Deadline>,
    ) -> impl Future<Output = Result<A, Fault>> + Send + 'static + use<A, M> {
        let encoded = encode(message);
        let shared = self.shared.clone();
        let mut open = self.open.subscribe();
        let task = tokio::spawn(async move {
            tokio::select! {
                answer = shared.exchange(call, encoded?, deadline) => answer,
                _ = open.changed() => Err(Fault::Disconnected),
            }
        });
        async {
            let answer = task.await.unwrap_or(Err(Fault::Disconnected))?;
            A::parse_from_bytes(&answer).map_err(|error| Fault::Malformed(error.to_string()))
        }
    }
}

impl Shared {
    async fn exchange(
        &self,
        call: Call,
        message: Vec<u8>,
        deadline: Option<Deadline>,
    ) -> Result<Vec<u8>, Fault> {
        let Some(deadline) = deadline else { return self.request(call, message, None).await };
        let request = self.request(call, message, Some(deadline));
        let answer = timeout(deadline.remaining(), request).await.unwrap_or(Err(Fault::Deadline));
        match answer {
            // ttrpc says in words only that its own clock was quicker.
            Err(Fault::Disconnected | Fault::Malformed(_)) if deadline.is_over() => Err(Fault::Deadline),
            answer => answer,
        }
    }

    async fn request(
        &self,
        call: Call,
        message: Vec<u8>,
        deadline: Option<Deadline>,
    ) -> Result<Vec<u8>, Fault> {
        let link = self.link().await?;
        let again = may_come_twice(call).then(|| message.clone());
        match (link.request(call, message, deadline).await, again) {
            (Err(Fault::Disconnected), Some(message)) => {
                self.link().await?.request(call, message, deadline).await
            }
            (answer, _) => answer,
        }
    }

    /// The connection, made anew if it has ended.
    #[expect(clippy::await_holding_invalid_type, reason = "who queues wants the connection being made")]
    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let link = self.current();
        if !link.has_ended() {
            return Ok(link);
        }
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Fault::Disconnected);
        }
        let mut failed = self.failed.lock().await;
        let link = self.current();
        if !link.has_ended() {
            return Ok(link);
        }
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return Err(Fault::Disconnected);
        }
        // Set before, so that it stays when this future is dropped.
        *failed = Some(Instant::now());
        let dialled = timeout(REDIAL, dial(&self.address)).await;
        let Ok(Ok(link)) = dialled else {
            *failed = Some(Instant::now());
            return Err(Fault::Disconnected);
        };
        *failed = None;
        let link = Arc::new(link);
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link.clone();
        Ok(link)
    }

    fn current(&self) -> Arc<Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether doing `call` twice is as good as once. Of a wait, the second asks again for what was told to
/// nobody; the agent says so if it has forgotten.
fn may_come_twice(call: Call) -> bool {
    match call {
        Call::Check
        | Call::GetGuestDetails
        | Call::GetMetrics
        | Call::GetDiagnosticData
        | Call::GetOOMEvent
        | Call::SetGuestDateTime
        | Call::ReseedRandomDev
        | Call::UpdateInterface
        | Call::ListInterfaces
        | Call::UpdateRoutes
        | Call::ListRoutes
        | Call::GetIPTables
        | Call::SetIPTables
        | Call::GetVolumeStats
        | Call::ResizeVolume
        | Call::UpdateEphemeralMounts
        | Call::RemoveStaleVirtiofsShareMounts
        | Call::UpdateContainer
        | Call::StatsContainer
        | Call::WaitProcess
        | Call::TtyWinResize
        | Call::CloseStdin => true,
        Call::CreateSandbox
        | Call::DestroySandbox
        | Call::OnlineCPUMem
        | Call::MemHotplugByProbe
        | Call::AddSwap
        | Call::AddSwapPath
        | Call::AddARPNeighbors
        // Its last piece moves the file to its place.
        | Call::CopyFile
        | Call::CreateContainer
        | Call::StartContainer
        | Call::RemoveContainer
        | Call::PauseContainer
        | Call::ResumeContainer
        | Call::ExecProcess
        | Call::SignalProcess
        | Call::WriteStdin
        | Call::ReadStdout
        | Call::ReadStderr => false,
    }
}

/// Refuses here what ttrpc would refuse in words only.
fn encode(message: &impl Message) -> Result<Vec<u8>, Fault> {
    let bytes = message.write_to_bytes().map_err(|error| Fault::Unsendable(error.to_string()))?;
    if bytes.len() > MAX_REQUEST {
        let size = bytes.len();
        return Err(Fault::Unsendable(format!(
            "the request has {size} bytes, the protocol allows {MAX_REQUEST}"
        )));
    }
    Ok(bytes)
}
