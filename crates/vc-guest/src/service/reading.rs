//! ReadStdout and ReadStderr: what a process wrote goes from its pipe to where it is sent from, and nowhere else. What
//! goes over the wire is what the generated code makes.

use super::connection::{failure, refusal};
use super::frame::Answer;
use super::log_failure;
use crate::error::CallError;
use crate::guest::Guest;
use protobuf::Message;
use ttrpc::{Code, Request};
use vc_agent_protocol::agent::ReadStreamRequest;

/// The most bytes of one answer; a ttrpc message has at most 4 MiB.
const MAX_READ: usize = 1 << 20;

/// What stands before the bytes in a frame, at most: the header, the status, the tags and lengths of the response's
/// payload and of its data. Lengths up to 2 MiB take three bytes.
const ROOM: usize = 10 + 2 + (1 + 3) + (1 + 3);

/// An output of a process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    /// Which one `request` asks for, if it does.
    pub(super) fn of(request: &Request) -> Option<Self> {
        match (request.service.as_str(), request.method.as_str()) {
            ("grpc.AgentService", "ReadStdout") => Some(Self::Stdout),
            ("grpc.AgentService", "ReadStderr") => Some(Self::Stderr),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Stdout => "ReadStdout",
            Self::Stderr => "ReadStderr",
        }
    }
}

/// The answer to the request `payload` for `output`, which came as `stream`.
///
/// # Cancel safety
/// Must end with the connection: an answer that nobody waits for any more must not take bytes from a process.
pub(super) async fn answer(guest: &Guest, output: Output, stream: u32, payload: &[u8]) -> Answer {
    let Ok(request) = ReadStreamRequest::parse_from_bytes(payload) else {
        return refusal(stream, Code::INVALID_ARGUMENT, "this is no request to read");
    };
    match read(guest, output, &request).await {
        Ok(bytes) => around(stream, bytes),
        Err(error) => {
            log_failure(output.method(), &error);
            failure(stream, error)
        }
    }
}

/// The bytes of the answer, after the room for what stands before them. The end of a stream is an answer without
/// bytes; so is the stderr of a process with a terminal.
async fn read(guest: &Guest, output: Output, request: &ReadStreamRequest) -> Result<Vec<u8>, CallError> {
    let container = guest.container(&request.container_id)?;
    let process = container.process(&request.exec_id)?;
    let most = usize::try_from(request.len).unwrap_or(MAX_READ).min(MAX_READ);
    if most == 0 {
        return Err(CallError::Range("the length"));
    }
    let output = match output {
        Output::Stdout => Some(&process.streams.stdout),
        Output::Stderr => process.streams.stderr.as_ref(),
    };
    let mut bytes = vec![0; ROOM];
    if let Some(output) = output {
        let read = output.read(&mut bytes, most, &process.exit).await;
        read.map_err(|error| CallError::Stream("read the stream", error))?;
    }
    if bytes.len() == ROOM {
        container.forget_if_done(&process);
    }
    Ok(bytes)
}

/// A response that succeeded, whose payload is a `ReadStreamResponse` of the `bytes` after the room.
fn around(stream: u32, bytes: Vec<u8>) -> Answer {
    /// Field 1 of a response, the status: a message without fields that are set.
    const OK: [u8; 2] = [1 << 3 | 2, 0];
    const PAYLOAD: u8 = 2 << 3 | 2;
    const DATA: u8 = 1 << 3 | 2;
    let length = bytes.len() - ROOM;
    let mut prefix = OK.to_vec();
    // The default value of a field is not sent.
    if length > 0 {
        let mut data = vec![DATA];
        put_length(&mut data, length);
        prefix.push(PAYLOAD);
        put_length(&mut prefix, data.len() + length);
        prefix.extend(data);
    }
    Answer::around(stream, bytes, ROOM, &prefix).expect("the room is made for the longest prefix")
}

/// A varint of protobuf.
fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    bytes.push(length.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttrpc::{Response, get_status};
    use vc_agent_protocol::agent::ReadStreamResponse;

    #[test]
    fn answers_are_what_the_generated_code_makes() {
        for length in [0, 1, 123, 124, 127, 128, 16_379, 16_380, 16_383, 16_384, MAX_READ] {
            let data: Vec<u8> = (0..251).cycle().take(length).collect();
            let bytes = [vec![0; ROOM], data.clone()].concat();
            let payload = ReadStreamResponse { data, ..Default::default() }.write_to_bytes().unwrap();
            let mut response = Response { payload, ..Default::default() };
            response.set_status(get_status(Code::OK, ""));
            assert!(around(9, bytes).bytes() == Answer::of(9, &response).unwrap().bytes(), "{length}");
        }
    }
}
