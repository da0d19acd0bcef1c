//! What the handles ask of the owner.

use std::sync::Weak;

use oci_spec::runtime::LinuxResources;
use tokio::sync::oneshot;
use vc_agent::{
    ContainerStats, Diagnostic, ExecProcess, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize,
    VolumeStats,
};
use vc_hypervisor::Statistics;
use vc_types::{ContainerId, HostPath};

use crate::container::{ContainerSpec, ForcedStop, Stream};
use crate::error::{Leftover, OperationError};
use crate::sizing::Size;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, OperationError>>;

/// What the handles ask of the owner.
pub(crate) enum Request {
    Create { id: ContainerId, spec: Box<ContainerSpec>, reply: Reply<()> },
    Start { id: ContainerId, reply: Reply<()> },
    Exec { request: Box<ExecProcess>, handle: Weak<()>, reply: Reply<()> },
    Hold { process: ProcessRef, handle: Weak<()>, reply: Reply<()> },
    Wait { process: ProcessRef, reply: Reply<ExitStatus> },
    Pause { id: ContainerId, reply: Reply<()> },
    Resume { id: ContainerId, reply: Reply<()> },
    Update { id: ContainerId, resources: Box<LinuxResources>, reply: Reply<Size> },
    Stop { id: ContainerId, reply: Reply<Vec<Leftover>> },
    StopByForce { id: ContainerId, reply: Reply<ForcedStop> },
    Delete { id: ContainerId, reply: Reply<()> },
    Signal { target: SignalTarget, signal: Signal, reply: Reply<()> },
    Stats { id: ContainerId, reply: Reply<ContainerStats> },
    Diagnostic { id: ContainerId, what: Diagnostic, reply: Reply<String> },
    Read { process: ProcessRef, stream: Stream, most: u32, reply: Reply<Vec<u8>> },
    WriteStdin { process: ProcessRef, data: Vec<u8>, reply: Reply<usize> },
    CloseStdin { process: ProcessRef, reply: Reply<()> },
    Resize { process: ProcessRef, size: TerminalSize, reply: Reply<()> },
    VolumeStats { volume: HostPath, reply: Reply<VolumeStats> },
    ResizeVolume { volume: HostPath, bytes: u64, reply: Reply<()> },
    MachineStats { reply: Reply<Statistics> },
    StopSandbox { reply: oneshot::Sender<Vec<Leftover>> },
    KillMachine { reply: oneshot::Sender<()> },
    Leave { reply: oneshot::Sender<()> },
}
