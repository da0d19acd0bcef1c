//! As much of HTTP/1.1 (RFC 9112) as it takes to ask one thing by one connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use vc_types::HostPath;

/// The longest head, in bytes.
const MOST_HEAD: usize = 16 << 10;

/// The longest body, in bytes: that of a nydusd with a thousand images is below it.
const MOST_BODY: usize = 2 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum HttpError {
    Stream(io::Error),
    Malformed(&'static str),
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks, and reads the answer.
pub(super) async fn exchange(
    socket: &HostPath,
    method: &str,
    path: &str,
    body: Option<&str>,
) -> Result<Answer, HttpError> {
    let mut stream = UnixStream::connect(socket).await.map_err(HttpError::Stream)?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    if let Some(body) = body {
        request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    request += body.unwrap_or_default();
    stream.write_all(request.as_bytes()).await.map_err(HttpError::Stream)?;
    let (start, body) = read_message(&mut stream).await?;
    let status = start.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok(Answer { status: status.ok_or(HttpError::Malformed("it has no status"))?, body })
}

/// Reads a request or an answer: its first line, and its body.
pub(super) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(String, Vec<u8>), HttpError> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            break end;
        }
        if read.len() > MOST_HEAD {
            return Err(HttpError::Malformed("its head has no end"));
        }
        if stream.read_buf(&mut read).await.map_err(HttpError::Stream)? == 0 {
            return Err(HttpError::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    let mut body = read.split_off(end + 4);
    let head = String::from_utf8(read).map_err(|_| HttpError::Malformed("its head is no text"))?;
    let mut lines = head.lines();
    let start = lines.next().unwrap_or_default().to_owned();
    let length = length_of(lines)?;
    if body.len() > length {
        return Err(HttpError::Malformed("it goes on behind its end"));
    }
    let mut rest = vec![0; length - body.len()];
    stream.read_exact(&mut rest).await.map_err(HttpError::Stream)?;
    body.extend(rest);
    Ok((start, body))
}

/// How long the body is; none has no length.
fn length_of<'a>(headers: impl Iterator<Item = &'a str>) -> Result<usize, HttpError> {
    let mut length = 0;
    for (name, value) in headers.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Malformed("it comes in pieces"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| HttpError::Malformed("its length is no number"))?;
        }
    }
    if length > MOST_BODY { Err(HttpError::Malformed("it is too long")) } else { Ok(length) }
}
