//! Why the network is not as the host asked for.

use nix::errno::Errno;

/// Why the network is not as the host asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A text that is no address.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// A text that is no length of a network prefix.
    #[error("{0:?} is no prefix length of that address")]
    Prefix(String),
    /// A text that is no hardware address.
    #[error("{0:?} is no hardware address; write it as aa:bb:cc:dd:ee:ff")]
    Hardware(String),
    /// A name that no interface can have.
    #[error("{0:?} is no name for an interface: those have 1 to 15 bytes, without space or slash")]
    Name(String),
    /// A number that is too large.
    #[error("{0} is out of range")]
    Range(&'static str),
    /// An interface that did not come in time.
    #[error("no network interface came with {0}: is it plugged, and is its driver in the guest image?")]
    Absent(String),
    /// The kernel refuses.
    #[error("cannot {step} {object}")]
    Kernel {
        /// What failed.
        step: &'static str,
        /// On what.
        object: String,
        /// Why.
        #[source]
        errno: Errno,
    },
    /// The guest has no iptables.
    #[error("this guest image has no {0}")]
    NoProgram(&'static str),
    /// The program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it wrote to its standard error, cut after some lines.
        output: String,
    },
    /// The program cannot be used.
    #[error("cannot run {0}")]
    Run(&'static str, #[source] std::io::Error),
}
