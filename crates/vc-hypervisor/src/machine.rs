//! The traits: how a machine comes to be, what it can do, how it ends.

use std::future::Future;

use vc_types::{AgentAddress, Deadline};

use crate::{
    Capabilities, ControlError, Hotplug, LaunchError, MachineExit, MachineSpec, Resize, Statistics, StopError,
};

/// Launches machines.
pub trait Hypervisor: Send + Sync + 'static {
    /// The machines it launches.
    type Machine: Machine;

    /// Starts a machine and returns once it takes commands; its guest may still be booting.
    ///
    /// A machine that dies with this process may do so with the thread that polls this already: an adapter says so
    /// where it is configured.
    ///
    /// # Errors
    /// [`LaunchError`]; then nothing is left of the attempt: no process, no socket, no file.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    fn launch(
        &self,
        spec: &MachineSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Self::Machine, LaunchError>> + Send;

    /// Takes over a machine that outlived its owner: `spec` is what that launched, `handle` what
    /// [`Machine::handle`] said last. `None` when the machine is not there any more.
    ///
    /// # Errors
    /// [`LaunchError`] when it is there and cannot be taken over, or `handle` is none of this adapter's.
    /// It runs on then.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the machine as it is.
    fn reattach(
        &self,
        spec: &MachineSpec,
        handle: &str,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Option<Self::Machine>, LaunchError>> + Send;

    /// Ends whatever is left of the machine of `spec` after the death of its owner, however far its launch had
    /// come: processes, and their files in the runtime directory.
    ///
    /// # Errors
    /// [`StopError`]. May be called again.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    fn clean_up(
        &self,
        spec: &MachineSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), StopError>> + Send;
}

/// A running machine. Dropping it ends it at once, unless it was let go.
pub trait Machine: Hotplug + Resize + 'static {
    /// What another process needs to take it over, to be written down after each change of its devices.
    /// Only its adapter can read it.
    fn handle(&self) -> String;

    /// Lets it run on when this value is dropped. Only for one that was launched to outlive its owner.
    fn let_go(&self);

    /// Where its agent will answer.
    fn agent_address(&self) -> &AgentAddress;

    /// The end of what the guest has written to its console so far.
    fn console_tail(&self) -> String;

    /// What its hypervisor can do. The hypervisor is asked once, later calls answer at once.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time.
    fn capabilities(
        &self,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Capabilities, ControlError>> + Send;

    /// What it has used so far.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    fn statistics(&self, deadline: Deadline)
    -> impl Future<Output = Result<Statistics, ControlError>> + Send;

    /// Stops its vCPUs. A paused machine stays paused.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    fn pause(&self, deadline: Deadline) -> impl Future<Output = Result<(), ControlError>> + Send;

    /// Lets its vCPUs run again. A running machine runs on.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    fn resume(&self, deadline: Deadline) -> impl Future<Output = Result<(), ControlError>> + Send;

    /// Resolves when the machine has ended, for whatever reason; at once if it already has.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time, and by several callers.
    fn exited(&self) -> impl Future<Output = MachineExit> + Send;

    /// Presses the power button, waits until `grace` for the guest to power off, and then does what
    /// [`Machine::stop`] does, until `deadline`. A guest need not listen to the button; whoever has an
    /// agent asks that instead.
    ///
    /// # Errors
    /// [`StopError`], as [`Machine::stop`].
    ///
    /// # Cancel safety
    /// The button stays pressed if the future is dropped; the rest may not happen.
    fn power_down(
        &self,
        grace: Deadline,
        deadline: Deadline,
    ) -> impl Future<Output = Result<MachineExit, StopError>> + Send;

    /// Ends the machine and all that belongs to it, and waits until nothing is left. Does not ask the
    /// guest. The hypervisor is asked to quit, so that it closes its images; if it does not in time, it is
    /// killed. A machine that has ended is fine.
    ///
    /// # Errors
    /// [`StopError`] when `deadline` passes first. May be called again.
    ///
    /// # Cancel safety
    /// Once asked, the machine ends even if the future is dropped.
    fn stop(&self, deadline: Deadline) -> impl Future<Output = Result<MachineExit, StopError>> + Send;
}
