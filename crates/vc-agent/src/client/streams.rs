//! Standard streams, over ttrpc.

use vc_agent_protocol::agent::{
    CloseStdinRequest, Empty, ReadStreamRequest, ReadStreamResponse, WriteStreamRequest, WriteStreamResponse,
};
use vc_types::Deadline;

use super::{Client, MAX_CHUNK, message};
use crate::{AgentError, Call, ProcessRef, Streams};

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
        let answer: WriteStreamResponse = self.streams.ask(call, &message, None).await?;
        match usize::try_from(answer.len) {
            Ok(taken) if (1..=data.len()).contains(&taken) => Ok(taken),
            _ => {
                let detail = format!("it took {} of {} bytes", answer.len, data.len());
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
        self.calls.ask::<Empty>(Call::CloseStdin, &message, Some(deadline)).await.map(drop)
    }

    async fn read_stdout(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        self.read(Call::ReadStdout, process, most).await
    }

    async fn read_stderr(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        self.read(Call::ReadStderr, process, most).await
    }
}

impl Client {
    async fn read(&self, call: Call, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        if most == 0 {
            // The empty answer would read as the end of the stream.
            let detail = "a read must ask for 1 byte or more".to_owned();
            return Err(AgentError::Unsendable { call, detail });
        }
        let message = ReadStreamRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            len: most.min(MAX_CHUNK),
            ..Default::default()
        };
        let answer: ReadStreamResponse = self.streams.ask(call, &message, None).await?;
        let came = answer.data.len();
        match u32::try_from(came) {
            Ok(length) if length <= message.len => Ok(answer.data),
            _ => {
                Err(AgentError::Malformed { call, detail: format!("{came} bytes for {} asked", message.len) })
            }
        }
    }
}
