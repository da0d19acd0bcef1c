//! StartContainer, PauseContainer, ResumeContainer.

use super::{Container, Stage};
use crate::error::CallError;
use crate::executor::state_directory;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vc_types::Deadline;

/// How long the kernel may take to freeze or thaw a container.
const FREEZE_WAIT: Duration = Duration::from_secs(10);

impl Container {
    /// Lets the container's first process, which has waited since it was made, become its command; then
    /// runs the hooks for that. One that fails ends the container (`runtime.md`, "Lifecycle", step 9).
    pub(crate) async fn start(&self) -> Result<(), CallError> {
        self.let_go()?;
        if let Err(error) = self.hooks.started(&self.launcher.reaper, self.init).await {
            self.cgroup.kill_all()?;
            return Err(error.into());
        }
        Ok(())
    }

    fn let_go(&self) -> Result<(), CallError> {
        if self.process("")?.exit.borrow().is_some() {
            return Err(CallError::State {
                container: self.id.to_string(),
                action: "started: it was killed",
            });
        }
        let before = self.advance(&[Stage::Created], Stage::Running, "started")?;
        let started = self.notify().map_err(|error| CallError::Stream("start the container", error));
        if started.is_err() {
            *self.stage() = before;
        }
        started
    }

    /// libcontainer's init waits for a word on a socket in the container's state directory.
    fn notify(&self) -> std::io::Result<()> {
        // The name of a socket has at most 107 bytes (unix(7)), which the container's id could exceed.
        let directory = state_directory(self.id.as_str());
        let directory = open(&directory, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd());
        UnixStream::connect(path)?.write_all(b"start container")
    }

    /// Freezes all processes of the container.
    pub(crate) async fn pause(&self) -> Result<(), CallError> {
        self.advance(&[Stage::Running], Stage::Paused, "paused")?;
        self.freeze(true, Stage::Running).await
    }

    /// Lets all processes of the container run again.
    pub(crate) async fn resume(&self) -> Result<(), CallError> {
        self.advance(&[Stage::Paused], Stage::Running, "resumed")?;
        self.freeze(false, Stage::Paused).await
    }

    async fn freeze(&self, frozen: bool, before: Stage) -> Result<(), CallError> {
        let result = self.cgroup.freeze(frozen, Deadline::after(FREEZE_WAIT)).await;
        if result.is_err() {
            *self.stage() = before;
        }
        Ok(result?)
    }
}
