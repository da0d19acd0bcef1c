//! The device model of one machine, as pure values: facts about the host go in, decisions come out.
//!
//! ```text
//!  linux.devices, mounts ──> request ──> vfio plan ──> registry ──> spec ──> hypervisor
//!                               ^            ^            │
//!                             sysfs (a directory)         └──> topology: which place
//! ```
//!
//! - [`DeviceSpec`] and its kinds: what a machine is to get.
//! - [`request_of_linux_device`], [`request_of_mount`], [`request_of_disk`]: what a container asks for.
//! - [`plan_vfio`], [`annotations`]: which devices of the host a container gets for itself, when they are
//!   plugged, and by which number the guest finds them.
//! - [`Topology`]: what a machine has to plug devices into, and what is plugged where.
//! - [`Registry`]: who uses which device; when to plug, when to unplug.
//!
//! Nothing here opens a device, plugs or mounts.
#![forbid(unsafe_code)]

mod registry;
mod request;
mod spec;
mod sysfs;
mod topology;
mod vfio;

pub use registry::{
    AdoptError, AttachError, AttachStep, Attached, DetachStep, Detached, DeviceState, Handle,
    InvalidRegistry, Lifetime, Registry, ReportError, UnknownHandle, UnplugRefused, Use,
};
pub use request::{
    AccessError, AccessFacts, BLOCK_FILE_OPTION, ContainerNode, DeviceIdentity, DeviceRequest, DeviceSource,
    Dropped, FileId, Filtered, LinuxDevice, LinuxDeviceError, Mount, MountError, NamedFile, NodeKind,
    PathKind, PmemBacking, Requested, VhostUserSockets, control_first, decide_access, request_of_disk,
    request_of_linux_device, request_of_mount, without_removable_media,
};
pub use spec::{
    Access, AioBackend, ApQueue, BlockBackend, BlockSize, BlockSpec, CharacterSpec, DeviceSpec, FsTag,
    HostCache, ImageFormat, InvalidApQueue, InvalidBlockSize, InvalidFsTag, InvalidGuestCid, InvalidMdev,
    InvalidNetwork, InvalidPartitions, InvalidPmem, InvalidPortName, InvalidQueueSize, InvalidSerial,
    IoPolicy, MdevId, NativeNeedsDirect, NetworkBackend, NetworkSpec, PFN_SIGNATURE_OFFSET, PartitionImage,
    PartitionedSpec, PmemFrontend, PmemSpec, PortName, QueueSize, Serial, SerialPortBackend, SerialPortSpec,
    TapQueue, VfioApSpec, VfioFunction, VfioHandle, VfioPciSpec, VhostUserBlkSpec, VhostUserFsSpec,
    VsockBackend, VsockSpec, has_pfn_signature,
};
pub use sysfs::{GroupMember, IommuGroup, PciClass, PciFunction, Sysfs, SysfsError};
pub use topology::{
    BridgeSlot, Capacity, GuestLocation, InvalidTopology, Place, PortError, PortKind, PortWish, RootPort,
    RootPorts, ScsiUnit, SwitchPort, Topology, TopologyPolicy,
};
pub use vfio::{
    AnnotationError, CdiKind, CdiKinds, ContainerRole, InvalidPolicy, Moment, PlannedFunction, Port, Sibling,
    VfioMode, VfioPath, VfioPlan, VfioPlanError, VfioPolicy, VfioWanted, When, annotations, plan_vfio,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
