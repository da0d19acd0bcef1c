//! One connection to the agent, and requests over it.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::proto::Request;
use vc_types::Deadline;

use super::fault::Fault;
use super::guard::{End, Guard};
use crate::Call;

/// How long the end of a connection may take to become known here after a request failed by it.
const END_KNOWN_WITHIN: Duration = Duration::from_millis(200);

/// One ttrpc connection. It ends when it is dropped and no request is under way.
pub(super) struct Link {
    client: ttrpc::asynchronous::Client,
    end: watch::Receiver<Option<End>>,
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
        Self { client, end }
    }

    /// Whether the connection is known to have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Sends `message`, the encoded argument of `call`, and returns the encoded answer. The agent is
    /// told of `deadline`; whoever calls keeps it.
    ///
    /// Must not be dropped before it is done: ttrpc closes the connection when a request is dropped
    /// while it is being written.
    pub(super) async fn request(
        &self,
        call: Call,
        message: Vec<u8>,
        deadline: Option<Deadline>,
    ) -> Result<Vec<u8>, Fault> {
        let request = Request {
            service: service(call).to_owned(),
            method: call.to_string(),
            timeout_nano: nanoseconds(deadline),
            payload: message,
            ..Default::default()
        };
        match self.client.request(request).await {
            Ok(response) => Ok(response.payload),
            Err(ttrpc::Error::RpcStatus(status)) => Err(Fault::from_status(&status)),
            Err(error) => Err(self.fault(error.to_string()).await),
        }
    }

    /// ttrpc has one error for an answer that is none and for a connection that has just ended.
    async fn fault(&self, error: String) -> Fault {
        let mut end = self.end.clone();
        let end = match timeout(END_KNOWN_WITHIN, end.wait_for(Option::is_some)).await {
            Ok(end) => end.map_or(Some(End::Closed), |end| end.clone()),
            Err(_) => None,
        };
        match end {
            None => Fault::Malformed(error),
            Some(End::Violation(violation)) => Fault::Malformed(violation),
            Some(End::Closed) => Fault::Disconnected,
        }
    }
}

fn service(call: Call) -> &'static str {
    if call == Call::Check { "grpc.Health" } else { "grpc.AgentService" }
}

/// What the agent is told of the deadline: the nanoseconds left, where 0 would mean that there is none.
fn nanoseconds(deadline: Option<Deadline>) -> i64 {
    let left = deadline.map(|deadline| i64::try_from(deadline.remaining().as_nanos()).unwrap_or(i64::MAX));
    left.map_or(0, |left| left.max(1))
}
