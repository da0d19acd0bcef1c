//! How many files a process may have open: many for the agent, the usual number for containers.

use nix::sys::resource::{Resource, setrlimit};

/// The agent holds up to five descriptors for each process.
const AGENT: u64 = 262_144;

/// What processes start with on most systems, and what they may raise it to.
const CONTAINER: (u64, u64) = (1024, 262_144);

/// For the agent: the kernel gives its first process 1024.
pub(crate) fn raise_open_files() {
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, AGENT, AGENT) {
        tracing::warn!(%error, "only few files can be open");
    }
}

/// For the executor: its containers inherit the limit unless their specification sets it.
pub(crate) fn lower_open_files() {
    let (soft, hard) = CONTAINER;
    // It is lower than what was inherited, which is always allowed.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
}
