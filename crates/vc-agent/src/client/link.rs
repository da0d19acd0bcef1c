//! One connection to the agent, and requests over it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{Context, with_timeout};
use vc_types::Deadline;

use super::fault::Fault;
use super::guard::{End, Guard};
use crate::{AgentError, Call};

/// How long the end of a connection may take to become known here after a request failed by it.
const END_KNOWN_WITHIN: Duration = Duration::from_millis(200);

/// One ttrpc connection. It ends when it is dropped, also for the requests under way.
pub(super) struct Link {
    client: ttrpc::asynchronous::Client,
    end: watch::Receiver<Option<End>>,
    /// Nothing is ever sent: each request ends when this is dropped.
    open: watch::Sender<()>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("end", &*self.end.borrow()).finish_non_exhaustive()
    }
}

impl Link {
    /// Speaks ttrpc over `stream`. Must be called within a tokio runtime.
    pub(super) fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static) -> Self {
        let (stream, end) = Guard::new(stream);
        let client = ttrpc::asynchronous::Client::new(Socket::new(stream));
        Self { client, end, open: watch::Sender::new(()) }
    }

    /// Sends what `request` makes and waits for the answer, until `deadline` if there is one.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer.
    pub(super) async fn request<T, F>(
        &self,
        call: Call,
        deadline: Option<Deadline>,
        request: impl FnOnce(ttrpc::asynchronous::Client, Context) -> F,
    ) -> Result<T, AgentError>
    where
        T: Send + 'static,
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
    {
        let answer = self.start(deadline, request);
        answer.await.map_err(|fault| fault.into_error(call))
    }

    /// Starts a request at once; it goes on when the returned future is dropped: until its answer, its deadline or
    /// the end of this connection.
    pub(super) fn start<T, F>(
        &self,
        deadline: Option<Deadline>,
        request: impl FnOnce(ttrpc::asynchronous::Client, Context) -> F,
    ) -> impl Future<Output = Result<T, Fault>> + Send + 'static
    where
        T: Send + 'static,
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
    {
        let request = request(self.client.clone(), context(deadline));
        let end = self.end.clone();
        let mut open = self.open.subscribe();
        let task = tokio::spawn(async move {
            let answer = async {
                let answer = tokio::select! {
                    answer = request => answer,
                    _ = open.changed() => return Err(Fault::Disconnected),
                };
                match answer {
                    Ok(answer) => Ok(answer),
                    Err(error) => Err(fault(error, end).await),
                }
            };
            let Some(deadline) = deadline else { return answer.await };
            let answer = timeout(deadline.remaining(), answer).await.unwrap_or(Err(Fault::Deadline));
            match answer {
                // ttrpc says in words only that its own clock was quicker.
                Err(Fault::Disconnected | Fault::Malformed(_)) if deadline.is_over() => Err(Fault::Deadline),
                answer => answer,
            }
        });
        async { task.await.unwrap_or(Err(Fault::Disconnected)) }
    }
}

/// What the agent is told of the deadline: the nanoseconds left, where 0 would mean that there is none.
fn context(deadline: Option<Deadline>) -> Context {
    let left = deadline.map(|deadline| i64::try_from(deadline.remaining().as_nanos()).unwrap_or(i64::MAX));
    with_timeout(left.map_or(0, |left| left.max(1)))
}

async fn fault(error: ttrpc::Error, mut end: watch::Receiver<Option<End>>) -> Fault {
    let what = match error {
        ttrpc::Error::RpcStatus(status) => return Fault::from_status(&status),
        error => error.to_string(),
    };
    // ttrpc has one error for an answer that is none and for a connection that has just ended.
    let end = match timeout(END_KNOWN_WITHIN, end.wait_for(Option::is_some)).await {
        Ok(end) => end.map_or(Some(End::Closed), |end| end.clone()),
        Err(_) => None,
    };
    match end {
        None => Fault::Malformed(what),
        Some(End::Violation(violation)) => Fault::Malformed(violation),
        Some(End::Closed) => Fault::Disconnected,
    }
}
