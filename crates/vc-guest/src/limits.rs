//! Limits of processes: how many files they may have open, many for the agent and the usual number for containers; and the
//! way to what a container asks for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

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

/// For who is about to enter a user namespace: raises the limits up to which those that are asked for can be set there, where
/// nobody may raise them any more (setrlimit(2), `CAP_SYS_RESOURCE`). What cannot be raised is refused when it is set.
pub(crate) fn make_room(rlimits: &[PosixRlimit]) {
    for rlimit in rlimits {
        let resource = resource(rlimit.typ());
        let raised = getrlimit(resource).and_then(|(soft, hard)| match rlimit.hard() > hard {
            true => setrlimit(resource, soft, rlimit.hard()),
            false => Ok(()),
        });
        if let Err(error) = raised {
            tracing::debug!(%error, "a limit is not raised");
        }
    }
}

fn resource(of: PosixRlimitType) -> Resource {
    match of {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
