//! Why a call fails, and the ttrpc code that tells the host.

use crate::block::BlockError;
use crate::cgroup::CgroupError;
use crate::devices::DeviceRuleError;
use crate::executor::{Failure, LaunchError};
use crate::hooks::HookError;
use crate::log::chain;
use crate::machine::{CopyFileError, HotplugError, VolumeError};
use crate::modules::ModuleError;
use crate::network::NetworkError;
use crate::spec::SpecError;
use crate::storage::StorageError;
use nix::errno::Errno;
use std::path::PathBuf;
use ttrpc::Code;
use vc_types::InvalidId;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the id {0:?} is not usable")]
    Id(String, #[source] InvalidId),
    #[error("there is no container {0}")]
    NoContainer(String),
    #[error("there is no process {exec:?} in container {container}")]
    NoProcess { container: String, exec: String },
    #[error("there is a container {0} already")]
    ContainerExists(String),
    #[error("there is a process {0:?} in the container already")]
    ProcessExists(String),
    #[error("container {0} has too many processes that nobody waited for")]
    TooManyProcesses(String),
    #[error("container {container} cannot be {action} in its present state")]
    State { container: String, action: &'static str },
    #[error("this sandbox was created already")]
    SandboxExists,
    #[error("the container whose pids the sandbox shares has ended")]
    NoSharedPids,
    #[error("this agent does not support {0}")]
    Unsupported(&'static str),
    #[error("{0} is out of range")]
    Range(&'static str),
    #[error("the standard input of process {0:?} is closed")]
    StdinClosed(String),
    #[error("process {0:?} has no terminal")]
    NoTerminal(String),
    #[error("{0} did not come to an end in time")]
    Late(&'static str),
    #[error("the device for {0:?} cannot be had: its type, its address or its path is not usable")]
    Device(String),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("cannot enforce the device rules")]
    DeviceRules(#[from] DeviceRuleError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    CopyFile(#[from] CopyFileError),
    #[error(transparent)]
    Hotplug(#[from] HotplugError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("cannot swap to {0:?}")]
    Swap(PathBuf, #[source] Errno),
    #[error("there is no log of type {0:?}; there is termination_log")]
    LogType(String),
    #[error("container {0} has no annotation that names a termination log")]
    NoTerminationLog(String),
    #[error("cannot {0}")]
    System(&'static str, #[source] Errno),
    #[error("cannot write {0:?}")]
    File(PathBuf, #[source] std::io::Error),
    #[error("cannot {0}")]
    Stream(&'static str, #[source] std::io::Error),
    #[error("this is a defect of the agent: the call panicked")]
    Panicked,
}

impl CallError {
    /// The code that the host decides by. `NOT_FOUND` and `PERMISSION_DENIED` from CreateContainer and
    /// ExecProcess mean the command: it is not in the container, or it cannot be executed.
    fn code(&self) -> Code {
        match self {
            Self::NoProcess { .. }
            | Self::Volume(VolumeError::Absent(_))
            | Self::Network(NetworkError::Absent(_))
            | Self::Storage(StorageError::NotMounted(_))
            | Self::Launch(LaunchError::Failed(Failure::NotFound(_) | Failure::NoInterpreter(_))) => {
                Code::NOT_FOUND
            }
            Self::Launch(LaunchError::Failed(Failure::NotExecutable(..))) => Code::PERMISSION_DENIED,
            Self::Id(..)
            | Self::NoContainer(_)
            | Self::Device(_)
            | Self::Cgroup(CgroupError::Limit { .. })
            | Self::DeviceRules(DeviceRuleError::Access(_) | DeviceRuleError::Number(_))
            | Self::Range(_)
            | Self::LogType(_)
            | Self::Spec(_)
            | Self::CopyFile(
                CopyFileError::Path(..)
                | CopyFileError::Outside(_)
                | CopyFileError::Kind { .. }
                | CopyFileError::Range(_),
            )
            | Self::Volume(VolumeError::Path(..))
            | Self::Network(
                NetworkError::Address(_)
                | NetworkError::Prefix(_)
                | NetworkError::Hardware(_)
                | NetworkError::Name(_)
                | NetworkError::Range(_),
            )
            | Self::Storage(StorageError::Invalid(..) | StorageError::Lowerdir(..)) => Code::INVALID_ARGUMENT,
            Self::Cgroup(CgroupError::Exists(_))
            | Self::ContainerExists(_)
            | Self::ProcessExists(_)
            | Self::SandboxExists => Code::ALREADY_EXISTS,
            Self::Launch(LaunchError::Failed(Failure::Gone))
            | Self::State { .. }
            | Self::NoTerminationLog(_)
            | Self::StdinClosed(_)
            | Self::NoSharedPids
            | Self::NoTerminal(_) => Code::FAILED_PRECONDITION,
            Self::TooManyProcesses(_)
            | Self::Launch(
                LaunchError::Failed(Failure::TooManyProcesses) | LaunchError::Clone(Errno::EAGAIN),
            ) => Code::RESOURCE_EXHAUSTED,
            Self::Unsupported(_)
            | Self::Hotplug(HotplugError::NoProbe)
            | Self::Volume(VolumeError::Kind(_))
            | Self::Network(NetworkError::NoProgram(_)) => Code::UNIMPLEMENTED,
            Self::Late(_)
            | Self::Hotplug(HotplugError::Late { .. })
            | Self::Launch(LaunchError::Late)
            | Self::Cgroup(CgroupError::Late(..)) => Code::DEADLINE_EXCEEDED,
            Self::Storage(_)
            | Self::CopyFile(_)
            | Self::Hotplug(_)
            | Self::Network(_)
            | Self::Volume(_)
            | Self::Swap(..)
            | Self::Block(_)
            | Self::DeviceRules(_)
            | Self::Launch(_)
            | Self::Hook(_)
            | Self::Module(_)
            | Self::Cgroup(_)
            | Self::System(..)
            | Self::File(..)
            | Self::Stream(..)
            | Self::Panicked => Code::INTERNAL,
        }
    }
}

impl From<CallError> for ttrpc::Status {
    fn from(error: CallError) -> Self {
        ttrpc::get_status(error.code(), chain(&error))
    }
}

impl From<CallError> for ttrpc::Error {
    fn from(error: CallError) -> Self {
        Self::RpcStatus(error.into())
    }
}
