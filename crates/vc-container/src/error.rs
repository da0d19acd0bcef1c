//! Errors: which step failed, why, and what could not be undone.

use std::fmt;

use vc_agent::{AgentError, Call, ProcessRef};
use vc_device::{AttachError, ReportError, VfioFunction};
use vc_hypervisor::{
    ControlError, LaunchError, MachineExit, OneLine, PlugError, ResizeError, StopError, UnplugError,
};
use vc_share::{InvalidShareName, NydusError, ServerEnd, ServerError, ShareError};
use vc_storage::{InvalidDirectVolume, OpenError, PlanError, SharedFs};
use vc_types::{ContainerId, DeviceId, HostPath};

use crate::annotations::InvalidAnnotation;
use crate::guest_spec::SpecError;
use crate::passing::PassError;
use crate::sizing::SizeError;
use crate::state::{Refused, State};
use crate::storage::{CopyFailed, ImageFailed};
use crate::store::StoreError;

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Make the sandbox's directory on the host.
    MakeRuntimeDir(HostPath),
    /// Remove the sandbox's directory on the host.
    RemoveRuntimeDir(HostPath),
    /// Launch the machine.
    Launch,
    /// Wait for the agent to answer.
    Connect,
    /// End the machine.
    StopMachine,
    /// Decide how the container reaches the guest.
    Plan(ContainerId),
    /// Plug layers as a disk.
    Plug {
        /// The disk.
        device: DeviceId,
        /// What it carries, the top layer first.
        layers: Vec<HostPath>,
    },
    /// Plug a device of the host.
    Pass {
        /// What it is called in the machine.
        device: DeviceId,
        /// Which.
        function: VfioFunction,
    },
    /// Make an image for the container to write to.
    MakeImage(HostPath),
    /// Remove an image that was made for nothing.
    RemoveImage(HostPath),
    /// Make a device known as one that the container uses.
    Attach(ContainerId),
    /// Unplug a disk.
    Unplug(DeviceId),
    /// Make the directory that host and guest share, and have it served.
    ServeShares,
    /// Share a file or directory with the guest.
    Share(HostPath),
    /// Have nydusd mount an image.
    MountImage(HostPath),
    /// Have nydusd forget the image of a container.
    UnmountImage(ContainerId),
    /// Take something out of the shared directory.
    Unshare(String),
    /// End what serves the shared directory.
    EndServer,
    /// Remove the shared directory.
    RemoveShares,
    /// Tell a CSI driver which sandbox has its volume.
    Volume(HostPath),
    /// Ask how full a volume is.
    InspectVolume(HostPath),
    /// Have a volume grow.
    GrowVolume(HostPath),
    /// Copy a file or directory into the guest.
    Copy(HostPath),
    /// A call of the agent about the sandbox.
    Guest(Call),
    /// A call of the agent about a container.
    Container(Call, ContainerId),
    /// A call of the agent about a process that was executed in a container.
    Process(Call, ProcessRef),
    /// Give the machine the size that its containers need together.
    ResizeMachine,
    /// Write the sandbox's record.
    Record,
    /// Ask the hypervisor about the machine.
    InspectMachine,
    /// Check that the operation is for the container's state.
    CheckState(ContainerId),
}

impl Step {
    /// A call about a process: a container's own, or one that was executed in it.
    pub(crate) fn of(call: Call, process: &ProcessRef) -> Self {
        match process.exec {
            None => Self::Container(call, process.container.clone()),
            Some(_) => Self::Process(call, process.clone()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeRuntimeDir(path) => write!(f, "make the directory {path}"),
            Self::RemoveRuntimeDir(path) => write!(f, "remove the directory {path}"),
            Self::Launch => f.write_str("launch the machine"),
            Self::Connect => f.write_str("reach the agent in the guest"),
            Self::StopMachine => f.write_str("end the machine"),
            Self::Plan(id) => write!(f, "plan container {id}"),
            Self::Plug { device, layers } => match &**layers {
                [layer] => write!(f, "plug layer {layer} as {device}"),
                layers => write!(f, "plug {} layers as {device}", layers.len()),
            },
            Self::Pass { device, function } => write!(f, "pass {function} of the host as {device}"),
            Self::MakeImage(path) => write!(f, "make the image {path}"),
            Self::RemoveImage(path) => write!(f, "remove the image {path}"),
            Self::Attach(id) => write!(f, "attach a device to container {id}"),
            Self::Unplug(device) => write!(f, "unplug {device}"),
            Self::ServeShares => f.write_str("share a directory with the guest"),
            Self::Share(path) => write!(f, "share {path} with the guest"),
            Self::MountImage(path) => write!(f, "have nydusd mount {path}"),
            Self::UnmountImage(id) => write!(f, "have nydusd forget the image of container {id}"),
            Self::Unshare(name) => write!(f, "take {name} out of the shared directory"),
            Self::EndServer => f.write_str("end what serves the shared directory"),
            Self::RemoveShares => f.write_str("remove the shared directory"),
            Self::Volume(path) => write!(f, "tell the CSI driver which sandbox has its volume {path}"),
            Self::InspectVolume(path) => write!(f, "ask how full the volume {path} is"),
            Self::GrowVolume(path) => write!(f, "have the volume {path} grow"),
            Self::Copy(path) => write!(f, "copy {path} into the guest"),
            Self::Guest(call) => write!(f, "prepare the guest ({call})"),
            Self::Container(call, id) => match call {
                Call::CreateContainer => write!(f, "create container {id}"),
                Call::StartContainer => write!(f, "start container {id}"),
                Call::RemoveContainer => write!(f, "remove container {id}"),
                Call::SignalProcess => write!(f, "signal container {id}"),
                Call::WaitProcess => write!(f, "wait for container {id}"),
                Call::UpdateContainer => write!(f, "change the limits of container {id}"),
                Call::PauseContainer => write!(f, "pause container {id}"),
                Call::ResumeContainer => write!(f, "resume container {id}"),
                Call::StatsContainer => write!(f, "ask what container {id} uses"),
                other => write!(f, "serve container {id} ({other})"),
            },
            Self::Process(call, process) => match call {
                Call::ExecProcess => write!(f, "start process {process}"),
                Call::SignalProcess => write!(f, "signal process {process}"),
                Call::WaitProcess => write!(f, "wait for process {process}"),
                other => write!(f, "serve process {process} ({other})"),
            },
            Self::ResizeMachine => f.write_str("give the machine the size that its containers need"),
            Self::Record => f.write_str("write the sandbox's record"),
            Self::InspectMachine => f.write_str("ask what the machine uses"),
            Self::CheckState(id) => write!(f, "do this to container {id} now"),
        }
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The host refused.
    #[error("the host refused")]
    Host(#[from] std::io::Error),
    /// The record was not kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine was not launched.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The machine did not end.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// A disk was not plugged.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// A disk was not unplugged.
    #[error(transparent)]
    Unplug(#[from] UnplugError),
    /// A device cannot be had.
    #[error(transparent)]
    Attach(#[from] Box<AttachError>),
    /// A device is not where it can be.
    #[error(transparent)]
    Place(#[from] Box<ReportError>),
    /// The machine was not resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// The machine cannot have the size that is asked for.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// The machine did not do it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The agent did not do it.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The agent was not reached in time.
    #[error("the guest's console ended with: {}", OneLine(console))]
    AgentSilent {
        /// The end of what the guest wrote to its console.
        console: String,
        /// Why the last attempt failed.
        #[source]
        source: AgentError,
    },
    /// There is no plan for the container.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Devices of the host cannot be passed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A disk of the plan cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The shared directory cannot be changed.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A name is none for the shared directory.
    #[error(transparent)]
    ShareName(#[from] InvalidShareName),
    /// The shared directory is not served.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// nydusd did not do it.
    #[error(transparent)]
    Nydus(#[from] NydusError),
    /// What served the shared directory has ended.
    #[error("{0}")]
    ServerGone(ServerEnd),
    /// An image is not there, or does not go.
    #[error(transparent)]
    Image(#[from] ImageFailed),
    /// A CSI driver cannot be told.
    #[error(transparent)]
    DirectVolume(#[from] InvalidDirectVolume),
    /// A file was not copied.
    #[error(transparent)]
    Copy(#[from] CopyFailed),
    /// The plan is of another container.
    #[error("the storage is planned for container {0}")]
    OtherContainer(ContainerId),
    /// The plan is for another way to share directories.
    #[error("its storage is planned for the shared_fs {planned}, and that of the sandbox is {has}")]
    OtherSharing {
        /// What it is planned for.
        planned: SharedFs,
        /// What the sandbox has.
        has: SharedFs,
    },
    /// The plan needs what the agent in the guest does not say that it can do.
    #[error(
        "its storage needs an agent with {0:?} among the extra features of GetGuestDetails; this one has not"
    )]
    NoFeature(&'static str),
    /// The container's specification asks for what cannot be had.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// One of the container's annotations cannot be used.
    #[error(transparent)]
    Annotation(#[from] InvalidAnnotation),
    /// The machine ended meanwhile.
    #[error("the machine ended: {0}")]
    MachineGone(MachineExit),
    /// The operation is not for this state.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The call is not for this state.
    #[error("the container is {0}")]
    NotNow(State),
    /// There is a container of that name.
    #[error("there is already a container of this name")]
    Exists,
    /// The sandbox has no such volume of a CSI driver.
    #[error("the sandbox has no volume of a CSI driver by this path")]
    NoSuchVolume,
    /// A file system cannot grow beyond its disk.
    #[error("its disk has {bytes} bytes on the host; let that grow first")]
    SmallDisk {
        /// How many it has.
        bytes: u64,
    },
    /// There is no container of that name.
    #[error("there is no container of this name")]
    NoSuchContainer,
    /// There is a process of that name in the container.
    #[error("there is already a process of this name in the container")]
    ProcessExists,
    /// There is no process of that name in the container.
    #[error("there is no process of this name in the container")]
    NoSuchProcess,
    /// Another operation on the container has not ended.
    #[error("another operation on it has not ended")]
    Busy,
    /// The end of the process cannot be told.
    #[error("how it ended is lost: {0}")]
    ExitLost(String),
    /// Something of the container could not be released.
    #[error("not everything of it could be released")]
    StillHeld,
    /// Devices wait for the guest to let go of the container.
    #[error("the guest still holds the container that uses it")]
    StillUsed,
    /// The sandbox is being stopped.
    #[error("the sandbox is being stopped")]
    Stopping,
    /// The sandbox has been stopped.
    #[error("the sandbox has been stopped")]
    SandboxGone,
}

/// Something that could not be undone.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}")]
pub struct Leftover {
    /// The step that would have undone it.
    pub step: Step,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// An operation failed at one step; what it had done before is undone, but for what is `left`.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}")]
pub struct OperationError {
    /// The step that failed.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: Cause,
    /// What could not be undone.
    pub left: Vec<Leftover>,
}

impl Cause {
    /// Whether nobody knows if it was done: it may be, or may come to be.
    pub(crate) fn is_uncertain(&self) -> bool {
        use AgentError as E;
        match self {
            Self::Agent(error) => {
                matches!(error, E::Deadline { .. } | E::Disconnected { .. } | E::Malformed { .. })
            }
            Self::Plug(error) => matches!(error, PlugError::Unknown { .. }),
            _ => false,
        }
    }
}

impl OperationError {
    pub(crate) fn new(step: Step, cause: impl Into<Cause>) -> Self {
        Self { step, cause: cause.into(), left: Vec::new() }
    }
}
