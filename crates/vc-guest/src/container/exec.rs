//! ExecProcess: one more process in a running container.

use super::create::{Terminal, launch};
use super::{Container, Stage};
use crate::error::CallError;
use crate::executor::{ExecTask, Failure, LaunchError, Task};
use crate::guest::parse_id;
use crate::spec::exec_process;
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use vc_agent_protocol::oci;

impl Container {
    /// Starts `process` under the name `exec`.
    pub(crate) async fn exec(&self, exec: &str, process: &oci::Process) -> Result<(), CallError> {
        parse_id(exec)?;
        let process = exec_process(process)?;
        // Held while the executor is at work, so that removing the container waits for it.
        let _launching = self.launching.read().await;
        if *self.stage() != Stage::Running {
            return Err(CallError::State { container: self.id.to_string(), action: "joined by a process" });
        }
        let name = self.reserve_process(exec)?;
        let terminal = Terminal::of(&process)?;
        let joining = self.joining.clone();
        let task = |console| Task::Exec(Box::new(ExecTask { process, joining, console }));
        let launched = launch(&self.launcher, task, terminal, Some(self.open_init()?), &self.bundle).await?;
        name.fill(launched.into_process(exec.to_owned(), false, &self.launcher));
        Ok(())
    }

    /// The container's first process, as what it is and not as a number that may be another's.
    fn open_init(&self) -> Result<OwnedFd, CallError> {
        let init = self.process("")?.pid;
        self.launcher.reaper.open(init).map_err(|errno| match errno {
            Errno::ESRCH => CallError::Launch(LaunchError::Failed(Failure::Gone)),
            errno => CallError::System("find the container's first process", errno),
        })
    }
}
