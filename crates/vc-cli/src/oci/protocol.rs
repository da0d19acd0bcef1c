//! What a command and an owner say to each other: frames of JSON, each with its length before it.
//!
//! A frame is its length in bytes, four of them, the highest first, and then as much JSON. A command sends one
//! [`Request`] and gets one [`Reply`]. Only whoever may write to a container's directory can reach its owner,
//! and frames are bounded nevertheless.

use std::io::{self, Read, Write};

use oci_spec::runtime::{LinuxResources, Process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vc_types::HostPath;

use super::record::Status;
use crate::owner::Member;

/// Raised when a request of before is understood differently.
pub(crate) const VERSION: u32 = 1;

/// The longest frame, in bytes. What is longest in it is a container's specification.
pub(crate) const MOST: u32 = 4 << 20;

/// What a command asks of an owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request<A = Ask> {
    pub(crate) version: u32,
    pub(crate) ask: A,
}

impl<'a> Request<&'a Ask> {
    pub(crate) fn new(ask: &'a Ask) -> Self {
        Self { version: VERSION, ask }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ask {
    /// Let the process run.
    Start,
    /// Send a signal.
    Kill {
        /// Its number.
        signal: u8,
        /// To every process, not only the first.
        all: bool,
    },
    /// Run another process, with the streams whose descriptors come along: input, output, and, without a terminal,
    /// errors. The reply is [`Reply::Started`]; then the command may send [`Word`]s, and is sent [`Reply::Exited`].
    /// The process is killed when the command goes away before.
    Exec {
        /// What it is.
        process: Box<Process>,
    },
    /// Make another container in the machine, with the streams whose descriptors come along, as above. The reply is
    /// [`Reply::Started`] when it waits for its start; all else is asked for at a socket of its own. The conversation
    /// goes on as above, and as above it ends when the command goes away.
    Add {
        /// What it is.
        member: Box<Member>,
    },
    /// Freeze its processes.
    Pause,
    /// Let them go on.
    Resume,
    /// Change its limits; what is not given stays.
    Update {
        /// The limits.
        resources: Box<LinuxResources>,
    },
    /// Tell what it uses.
    Stats,
    /// Tell how full a volume of a CSI driver is.
    VolumeStats {
        /// By what its driver knows it.
        volume: HostPath,
    },
    /// Have a volume of a CSI driver grow.
    ResizeVolume {
        /// By what its driver knows it.
        volume: HostPath,
        /// How large it is to be.
        bytes: u64,
    },
    /// End the container, its machine, and then the owner; a container that runs only by force.
    End {
        /// Whatever it is doing.
        force: bool,
    },
}

/// An owner's answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    /// It is done; of an end, it has begun.
    Done,
    /// The process is there.
    Started,
    /// The process has ended with this exit code, and, if it was a container's, the container has too.
    Exited(u8),
    /// What the container uses, as runc's events have it.
    Stats(serde_json::Value),
    /// How full a volume is, as Kata's agent protocol has it in JSON.
    Volume(serde_json::Value),
    /// It is not for the state the container is in.
    Refused(Status),
    /// It was tried.
    Failed {
        /// The exit code that `vc run` has for it.
        code: u8,
        /// Why, in one line.
        message: String,
    },
    /// The owner speaks another version.
    Version(u32),
}

/// What a command says about a process that runs for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    /// Send it this signal.
    Signal(u8),
    /// Its terminal has another size now.
    Resize {
        /// In characters.
        rows: u16,
        /// In characters.
        columns: u16,
    },
}

/// Writes one frame.
pub(crate) fn write_frame(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    to.write_all(&frame(value)?)
}

/// A frame as bytes.
pub(crate) fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MOST);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// Reads one frame; `None` when the other side has closed instead.
pub(crate) fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut json = vec![0; checked(u32::from_be_bytes(length))?];
    from.read_exact(&mut json)?;
    Ok(Some(serde_json::from_slice(&json)?))
}

/// The length of a frame, if it is accepted.
pub(crate) fn checked(length: u32) -> io::Result<usize> {
    let accepted = usize::try_from(length).ok().filter(|_| length <= MOST);
    accepted.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_out_as_it_went_in() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Request::new(&Ask::Kill { signal: 9, all: true })).unwrap();
        assert_eq!(&bytes[4..], br#"{"version":1,"ask":{"kill":{"signal":9,"all":true}}}"#);
        let request: Request = read_frame(&mut &*bytes).unwrap().unwrap();
        assert!(matches!(request.ask, Ask::Kill { signal: 9, all: true }));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(read_frame::<Reply>(&mut &[][..]).unwrap().is_none(), "closed");
        read_frame::<Reply>(&mut &b"\xff\xff\xff\xff{}"[..]).unwrap_err();
        read_frame::<Reply>(&mut &b"\0\0\0\x06\"do"[..]).unwrap_err();
        read_frame::<Reply>(&mut &b"\0\0\0\x06\"mine\""[..]).unwrap_err();
        assert_eq!(read_frame::<Reply>(&mut &b"\0\0\0\x06\"done\""[..]).unwrap(), Some(Reply::Done));
        frame(&"x".repeat(MOST as usize)).unwrap_err();
    }
}
