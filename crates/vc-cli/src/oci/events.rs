//! `vc events`: what a container uses, line by line.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::ask;
use super::control::{accept, word};
use super::protocol::{Ask, Reply};
use super::record::Status;
use super::root::{ContainerDir, Root};
use super::state::{Now, print};
use crate::cli::Events;
use crate::failure::Failure;

/// Prints one line, or one in each interval until the container has stopped.
pub(crate) fn events(root: &Root, options: &Events) -> Result<(), Failure> {
    let dir = root.get(&options.id)?;
    loop {
        let now = Now::of(&dir)?;
        let status = now.status();
        if status == Status::Stopped {
            let why = format!("container {} is {}", options.id, word(status));
            return if options.stats { Err(Failure::message(why)) } else { Ok(()) };
        }
        if let Some(data) = stats(&dir)? {
            let event = serde_json::json!({"type": "stats", "id": options.id.as_str(), "data": data});
            print(&format!("{event}\n"))?;
        }
        if options.stats {
            return Ok(());
        }
        let interval = Duration::from_secs(options.interval.get().into());
        owner_ended_within(now.record.pid, interval)
            .map_err(|error| Failure::step("wait for the next line", error))?;
    }
}

/// Waits for the time to be over, or the owner.
fn owner_ended_within(pid: Option<u32>, time: Duration) -> Result<(), Errno> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let owner = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        None | Some(Err(Errno::SRCH)) => return Ok(()),
        Some(owner) => owner?,
    };
    let time = Timespec::try_from(time).expect("at most 65535 seconds");
    poll(&mut [PollFd::new(&owner, PollFlags::IN)], Some(&time)).map(drop)
}

/// `None` when the container is ending.
fn stats(dir: &ContainerDir) -> Result<Option<serde_json::Value>, Failure> {
    let asked = ask(dir, Ask::Stats);
    let reply = asked.map_err(|error| Failure::step("talk to the owner of the container", error))?;
    match reply.map(accept).transpose()? {
        Some(Reply::Stats(data)) => Ok(Some(data)),
        Some(other) => Err(Failure::message(format!("the owner of the container answered {other:?}"))),
        None => Ok(None),
    }
}
