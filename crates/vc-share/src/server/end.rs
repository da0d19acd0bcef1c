//! The end of a server, and its last words.

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::watch;

use super::ServerKind;
use crate::sys;

/// How much of its standard error is kept, in bytes.
const STDERR_KEPT: usize = 4096;

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEnd {
    /// What it was.
    pub kind: ServerKind,
    /// Its status, if the system could tell: only to the process that started it.
    pub status: Option<ExitStatus>,
    /// The end of what it wrote to its standard error.
    pub said: String,
}

impl ServerEnd {
    /// Nobody could tell.
    pub(super) const fn unknown(kind: ServerKind) -> Self {
        Self { kind, status: None, said: String::new() }
    }
}

impl fmt::Display for ServerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "{kind} ended with code {code}")?,
            Some((None, Some(signal))) => write!(f, "{kind} was ended by signal {signal}")?,
            _ => write!(f, "{kind} has ended")?,
        }
        let said: Vec<&str> = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if said.is_empty() { Ok(()) } else { write!(f, ": {}", said.join("; ")) }
    }
}

/// Keeps the end of what a server writes, and tells its end.
pub(super) async fn follow(mut child: Child, kind: ServerKind, sender: watch::Sender<Option<ServerEnd>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let reading = child.stderr.take().map(|pipe| tokio::spawn(keep_end(pipe, Arc::clone(&said))));
    let status = child.wait().await.ok();
    if let Some(reading) = reading {
        // Its last words are in the pipe; a child of it that holds the pipe must not hold us.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), reading).await;
    }
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said).into_owned();
    sender.send_replace(Some(ServerEnd { kind, status, said }));
}

async fn keep_end(mut pipe: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&chunk[..read]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}

/// Tells the end of a server that another process started. How it ends, only that one is told.
pub(super) async fn follow_other(
    handle: OwnedFd,
    kind: ServerKind,
    sender: watch::Sender<Option<ServerEnd>>,
) {
    // A pidfd becomes readable when its process has ended (pidfd_open(2)).
    if let Ok(ended) = sys::watch(handle) {
        let _ = ended.readable().await;
        sender.send_replace(Some(ServerEnd::unknown(kind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_one_line() {
        let end = |raw, said: &str| {
            let status = Some(ExitStatus::from_raw(raw));
            ServerEnd { kind: ServerKind::Virtiofsd, status, said: said.into() }.to_string()
        };
        assert_eq!(end(9, ""), "virtiofsd was ended by signal 9");
        assert_eq!(end(256, "one\n\n two\n"), "virtiofsd ended with code 1: one; two");
    }
}
