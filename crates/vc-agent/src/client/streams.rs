//! Standard streams over ttrpc.

use vc_agent_protocol::agent::{
    CloseStdinRequest, ReadStreamRequest, ReadStreamResponse, TtyWinResizeRequest, WriteStreamRequest,
};
use vc_agent_protocol::agent_ttrpc::AgentServiceClient;
use vc_types::Deadline;

use super::{Client, MAX_CHUNK, message};
use crate::{AgentError, Call, ProcessRef, Streams, TerminalSize};

impl Streams for Client {
    async fn write_stdin(&self, process: &ProcessRef, data: &[u8]) -> Result<usize, AgentError> {
        let call = Call::WriteStdin;
        let most = usize::try_from(MAX_CHUNK).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(most)];
        if data.is_empty() {
            return Ok(0);
        }
        let message = WriteStreamRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            data: data.to_vec(),
            ..Default::default()
        };
        let answer = self.streams.request(call, None, |client, context| async move {
            AgentServiceClient::new(client).write_stdin(context, &message).await
        });
        let taken = answer.await?.len;
        match usize::try_from(taken) {
            Ok(taken) if (1..=data.len()).contains(&taken) => Ok(taken),
            _ => {
                let detail = format!("it took {taken} of {} bytes", data.len());
                Err(AgentError::Malformed { call, detail })
            }
        }
    }

    async fn close_stdin(&self, process: &ProcessRef, deadline: Deadline) -> Result<(), AgentError> {
        let message = CloseStdinRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            ..Default::default()
        };
        let answer = self.calls.request(Call::CloseStdin, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).close_stdin(context, &message).await
        });
        answer.await.map(drop)
    }

    async fn read_stdout(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        let message = read_request(Call::ReadStdout, process, most)?;
        let len = message.len;
        let answer = self.streams.request(Call::ReadStdout, None, |client, context| async move {
            AgentServiceClient::new(client).read_stdout(context, &message).await
        });
        bounded(Call::ReadStdout, answer.await?, len)
    }

    async fn read_stderr(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        let message = read_request(Call::ReadStderr, process, most)?;
        let len = message.len;
        let answer = self.streams.request(Call::ReadStderr, None, |client, context| async move {
            AgentServiceClient::new(client).read_stderr(context, &message).await
        });
        bounded(Call::ReadStderr, answer.await?, len)
    }

    async fn resize_terminal(
        &self,
        process: &ProcessRef,
        size: TerminalSize,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let message = TtyWinResizeRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            row: size.rows.into(),
            column: size.columns.into(),
            ..Default::default()
        };
        let answer = self.calls.request(Call::TtyWinResize, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).tty_win_resize(context, &message).await
        });
        answer.await.map(drop)
    }
}

/// # Errors
/// [`AgentError::Unsendable`] when `most` is 0: the empty answer would read as the end of the stream.
fn read_request(call: Call, process: &ProcessRef, most: u32) -> Result<ReadStreamRequest, AgentError> {
    if most == 0 {
        return Err(AgentError::Unsendable { call, detail: "a read must ask for 1 byte or more".to_owned() });
    }
    Ok(ReadStreamRequest {
        container_id: process.container.to_string(),
        exec_id: message::exec_id(process),
        len: most.min(MAX_CHUNK),
        ..Default::default()
    })
}

fn bounded(call: Call, answer: ReadStreamResponse, asked: u32) -> Result<Vec<u8>, AgentError> {
    let came = answer.data.len();
    match u32::try_from(came) {
        Ok(length) if length <= asked => Ok(answer.data),
        _ => Err(AgentError::Malformed { call, detail: format!("{came} bytes for {asked} asked") }),
    }
}
