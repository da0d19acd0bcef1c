//! Disks of the plan: what is on each, and that the host does not use it.

use serde::Serialize;
use vc_device::{Access, DeviceRequest, DeviceSource, NamedFile};
use vc_types::HostPath;

use super::Part;
use super::error::{DiskRefusal, PlanError};
use crate::facts::DiskFacts;
use crate::volume::MountPolicy;

/// A disk that is to be plugged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskPlan {
    /// What it is first needed for.
    pub part: Part,
    /// What it carries: one device or image, or several images as its partitions.
    pub images: Vec<DeviceSource>,
    /// How the images are on it.
    pub holds: DiskUse,
    /// Whether the guest may write to it.
    pub access: Access,
}

/// What a disk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskUse {
    /// One layer of a root.
    Layer,
    /// Layers of a root, each as a partition.
    Layers,
    /// A file system, or whatever the container makes of it.
    Volume,
}

impl DiskPlan {
    /// Whether layers are on it.
    pub fn holds_layers(&self) -> bool {
        self.holds != DiskUse::Volume
    }

    /// Where the host has its images, in their order.
    pub fn paths(&self) -> Vec<HostPath> {
        self.images.iter().filter_map(path_of).cloned().collect()
    }
}

impl DiskPlan {
    /// What the disk is on the host, for a registry of devices: containers with the same layers share it.
    ///
    /// # Errors
    /// What it is of, if that is no disk.
    pub fn request(&self) -> Result<DeviceRequest, DeviceSource> {
        let named = |image: &DeviceSource| match image {
            DeviceSource::File { file, path } => Ok(NamedFile { file: *file, path: path.clone() }),
            other => Err(other.clone()),
        };
        let source = match (self.holds, &*self.images) {
            (DiskUse::Layer | DiskUse::Volume, [image]) => image.clone(),
            (_, images) => {
                DeviceSource::Partitioned { images: images.iter().map(named).collect::<Result<_, _>>()? }
            }
        };
        Ok(DeviceRequest { source, access: self.access, node: None })
    }
}

/// Where the host has a device or image.
pub(super) fn path_of(source: &DeviceSource) -> Option<&HostPath> {
    match source {
        DeviceSource::Block { path, .. }
        | DeviceSource::File { path, .. }
        | DeviceSource::Pmem { path, .. } => Some(path),
        _ => None,
    }
}

/// The disks so far.
#[derive(Debug, Default)]
pub(super) struct Disks(Vec<DiskPlan>);

impl Disks {
    /// A disk of layers; its number.
    pub(super) fn layers(&mut self, images: &[DeviceSource], partitioned: bool) -> usize {
        let holds = if partitioned { DiskUse::Layers } else { DiskUse::Layer };
        self.push(DiskPlan { part: Part::Root, images: images.into(), holds, access: Access::ReadOnly })
    }

    /// A disk that only this machine may have; its number. A device that is there already is that disk, and
    /// is written to if any use of it is: what each use may do is up to its mount.
    ///
    /// # Errors
    /// [`DiskRefusal`] when the host uses it.
    pub(super) fn alone(
        &mut self,
        part: Part,
        request: DeviceRequest,
        facts: &DiskFacts,
    ) -> Result<usize, DiskRefusal> {
        if let Some(path) = path_of(&request.source) {
            refuse_used(path, &request.source, facts)?;
        }
        let identity = request.source.identity();
        let same = |disk: &DiskPlan| {
            disk.holds == DiskUse::Volume && disk.images.iter().any(|image| image.identity() == identity)
        };
        if let Some(number) = self.0.iter().position(same) {
            if request.access == Access::ReadWrite {
                self.0[number].access = Access::ReadWrite;
            }
            return Ok(number);
        }
        let (images, access) = (vec![request.source], request.access);
        Ok(self.push(DiskPlan { part, images, holds: DiskUse::Volume, access }))
    }

    pub(super) fn finish(self, policy: MountPolicy) -> Result<Vec<DiskPlan>, PlanError> {
        match self.0.first().and_then(|disk| disk.paths().into_iter().next()) {
            Some(path) if !policy.disks => Err(PlanError::NoDisks(path)),
            _ => Ok(self.0),
        }
    }

    fn push(&mut self, disk: DiskPlan) -> usize {
        self.0.push(disk);
        self.0.len() - 1
    }
}

/// A disk that the host uses is never given away.
fn refuse_used(path: &HostPath, source: &DeviceSource, facts: &DiskFacts) -> Result<(), DiskRefusal> {
    let own = match source {
        DeviceSource::Block { number, .. } => {
            Some(vc_mountinfo::DeviceNumber::new(number.major(), number.minor()))
        }
        _ => None,
    };
    match facts.uses.first() {
        Some(found) => Err(DiskRefusal::of(path, own, found)),
        None => Ok(()),
    }
}
