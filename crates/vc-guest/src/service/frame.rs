//! Frames of ttrpc: a header of ten bytes, and a message.

use protobuf::Message;
use std::io::Result;
use tokio::io::{AsyncRead, AsyncReadExt};
use ttrpc::Response;
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MessageHeader};

/// Reads the next frame. The message is `None` when it was longer than the protocol allows: it is read, and not kept.
///
/// # Errors
/// The end of the stream, or its error.
pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<(MessageHeader, Option<Vec<u8>>)> {
    let mut header = [0; MESSAGE_HEADER_LENGTH];
    reader.read_exact(&mut header).await?;
    let header = MessageHeader::from(header);
    match usize::try_from(header.length) {
        Ok(length) if length <= MESSAGE_LENGTH_MAX => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).await?;
            Ok((header, Some(body)))
        }
        _ => {
            let mut rest = reader.take(header.length.into());
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            Ok((header, None))
        }
    }
}

/// An answer as it goes over the wire.
#[derive(Debug, Default)]
pub(super) struct Answer {
    bytes: Vec<u8>,
    /// What is before is not sent.
    from: usize,
}

impl Answer {
    /// `None` when it is longer than the protocol allows.
    pub(super) fn of(stream: u32, response: &Response) -> Option<Self> {
        let mut bytes = vec![0; MESSAGE_HEADER_LENGTH];
        response.write_to_vec(&mut bytes).ok()?;
        let length = bytes.len() - MESSAGE_HEADER_LENGTH;
        bytes[..MESSAGE_HEADER_LENGTH].copy_from_slice(&header(stream, length)?);
        Some(Self { bytes, from: 0 })
    }

    /// The answer whose `bytes` have its end already, after `room` bytes of which `prefix` fills the last ones; a
    /// header comes before it. `None` when it is longer than the protocol allows.
    pub(super) fn around(stream: u32, mut bytes: Vec<u8>, room: usize, prefix: &[u8]) -> Option<Self> {
        let start = room.checked_sub(prefix.len())?;
        let from = start.checked_sub(MESSAGE_HEADER_LENGTH)?;
        let header = header(stream, bytes.len() - start)?;
        bytes[from..start].copy_from_slice(&header);
        bytes[start..room].copy_from_slice(prefix);
        Some(Self { bytes, from })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

fn header(stream: u32, length: usize) -> Option<Vec<u8>> {
    let length = u32::try_from(length).ok().filter(|_| length <= MESSAGE_LENGTH_MAX)?;
    Some(MessageHeader::new_response(stream, length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_longer_than_the_protocol_allows() {
        let response = |length| Response { payload: vec![0; length], ..Default::default() };
        let most = MESSAGE_LENGTH_MAX - 5;
        let answer = Answer::of(7, &response(most)).unwrap();
        let header = MessageHeader::from(&answer.bytes()[..MESSAGE_HEADER_LENGTH]);
        assert_eq!(header, MessageHeader::new_response(7, 4 << 20));
        assert_eq!(answer.bytes().len(), MESSAGE_HEADER_LENGTH + (4 << 20));
        assert!(Answer::of(7, &response(most + 1)).is_none());
    }

    #[tokio::test]
    async fn frames_come_one_after_the_other_and_too_long_ones_leave_nothing() {
        let mut bytes = Answer::of(1, &Response::new()).unwrap().bytes().to_vec();
        let too_long = MessageHeader::new_request(3, 4 * (1 << 20) + 1);
        bytes.extend(Vec::from(too_long));
        bytes.resize(bytes.len() + (4 << 20) + 1, 9);
        bytes.extend(Vec::from(MessageHeader::new_request(5, 1)));
        bytes.push(8);
        let mut reader = &bytes[..];
        assert_eq!(read(&mut reader).await.unwrap().1, Some(vec![]));
        assert_eq!(read(&mut reader).await.unwrap(), (too_long, None));
        assert_eq!(read(&mut reader).await.unwrap().1, Some(vec![8]));
        assert!(read(&mut reader).await.is_err());
    }
}
