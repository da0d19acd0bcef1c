//! mountinfo entry by entry from a stream, with one buffer.

use std::io::{self, Read};

use super::{Entry, MalformedLine};
use crate::sys::find_byte;

/// How much is asked for at a time.
///
/// The kernel formats into one page and throws away the line that no longer fits the reader's buffer, to
/// format it again at the next read; with long lines small reads are up to a third faster than large ones.
const CHUNK: usize = 1024;

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The table could not be read on; there is nothing more to get.
    #[error("cannot read the mount table")]
    Io(#[source] io::Error),
    /// One line was malformed; the next call goes on with the line after it.
    #[error("skipped a line of the mount table")]
    Malformed(#[source] MalformedLine),
}

/// Reads mountinfo from any stream, in small pieces, keeping one line in memory.
///
/// A table read in pieces is not a snapshot: mounts made or unmounted meanwhile may be in it or not. The
/// kernel keeps the place by mount, so others are neither lost nor listed twice.
#[derive(Debug)]
pub struct MountInfoReader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// What of `buffer` has been read but not yet handed out.
    unread: std::ops::Range<usize>,
    ended: bool,
}

impl<R: Read> MountInfoReader<R> {
    /// Starts at the stream's current place.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), unread: 0..0, ended: false }
    }

    /// The next entry; `None` at the end of the table.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] for a line that makes no sense; the call after it goes on.
    /// [`ReadError::Io`] when the stream fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        match self.next_line().map_err(ReadError::Io)? {
            Some(line) => Entry::parse(line).map(Some).map_err(ReadError::Malformed),
            None => Ok(None),
        }
    }

    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = 0;
        loop {
            let pending = &self.buffer[self.unread.clone()];
            if let Some(end) = find_byte(b'\n', &pending[searched..]) {
                let line = self.unread.start..self.unread.start + searched + end;
                self.unread.start = line.end + 1;
                return Ok(Some(&self.buffer[line]));
            }
            searched = pending.len();
            if self.ended {
                let line = std::mem::replace(&mut self.unread, 0..0);
                return Ok((!line.is_empty()).then(|| &self.buffer[line]));
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        // Once for each line, however long: what is there already stays.
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let filled = self.unread.end;
        if self.buffer.len() < filled + CHUNK {
            self.buffer.resize((filled + CHUNK).next_power_of_two(), 0);
        }
        loop {
            match self.stream.read(&mut self.buffer[filled..filled + CHUNK]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.unread.end += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            return Ok(());
        }
    }
}
