//! The root file system: which disks and storages each kind of it becomes.

use std::collections::BTreeSet;

use vc_agent::StorageDriver;
use vc_device::{
    Access, AccessFacts, DeviceRequest, DeviceSource, FileId, PathKind, decide_access, request_of_disk,
};
use vc_types::{ContainerId, DeviceNumber, GuestPath, HostPath};

use super::BLOB_PARTITION;
use super::disk::path_of;
use super::storage::{Order, PlannedStorage};
use super::{
    CopyPlan, Decision, ImagePlan, Part, PlanError, Planner, Root, ServicePlan, SharePlan, Unsupported,
    names, verity,
};
use crate::Packing;
use crate::facts::{DirectoryFacts, DiskFacts, LayerFacts, RootFacts};
use crate::rootfs::{
    BlockRootfs, Layers, MakeDirectory, MakeFilesystem, NydusExtra, Rootfs, Upper, VirtualVolume, VolumeType,
    WritableImage,
};
use crate::volume::SharedFs;

/// The driver option that makes the agent create a directory before it mounts.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory";

impl Planner<'_> {
    pub(super) fn root(&mut self, rootfs: &Rootfs, facts: &RootFacts) -> Result<Root, PlanError> {
        let reason = rootfs.reason();
        let mismatch = PlanError::Facts { asked: 1, known: 0 };
        let (way, path, layers, reason) = match (rootfs, facts) {
            (Rootfs::Layers(wanted), RootFacts::Layers { layers, upper }) => {
                let path = self.layers(wanted, layers, upper.as_ref())?;
                ("layers", path, layers.len(), reason)
            }
            (Rootfs::Block(block), RootFacts::Disk(facts)) => ("disk", self.block(block, facts)?, 0, reason),
            (Rootfs::Directory { source, read_only }, RootFacts::Directory(facts)) => {
                let (way, path) = self.directory(source, *read_only, facts)?;
                (way, path, 0, directory_reason(reason, facts))
            }
            (Rootfs::Nydus(nydus), RootFacts::Directory(facts)) => {
                ("nydus", self.nydus(nydus, facts)?, 0, reason)
            }
            (Rootfs::Volumes { volumes }, RootFacts::Disks(disks)) if disks.len() == volumes.len() => {
                let (path, layers) = self.virtual_volumes(volumes, disks)?;
                ("virtual volume", path, layers, reason)
            }
            _ => return Err(mismatch),
        };
        Ok(Root { path, decision: Decision { way, reason }, layers })
    }

    fn layers(
        &mut self,
        wanted: &Layers,
        facts: &[LayerFacts],
        upper: Option<&DiskFacts>,
    ) -> Result<GuestPath, PlanError> {
        if wanted.layers.len() != facts.len() {
            return Err(PlanError::LayerCount { planned: wanted.layers.len(), mounted: facts.len() });
        }
        if let Some(option) = wanted.options.iter().find(|option| !is_for_the_host(option)) {
            return Err(PlanError::Unsupported(Unsupported::OverlayOption(option.clone())));
        }
        match (&wanted.upper, upper) {
            (Upper::Memory { .. }, _) => {
                let layers = self.layer_storages(facts)?;
                Ok(self.overlay_in_memory(layers))
            }
            (Upper::Image(image), Some(upper)) => self.overlay_on_disk(image, upper, facts),
            (Upper::Image(_), None) => Err(PlanError::Facts { asked: 1, known: 0 }),
        }
    }

    /// Puts layers on disks; a storage for each, the top one first.
    fn layer_storages(&mut self, facts: &[LayerFacts]) -> Result<Vec<PlannedStorage>, PlanError> {
        if facts.is_empty() {
            return Err(PlanError::NoLayers);
        }
        let packing = packing(facts)?;
        let id = &self.request.container;
        let mut storages = Vec::new();
        for facts in filled(facts, packing.images_of_a_disk())? {
            let images: Vec<DeviceSource> = facts.iter().flat_map(images_of).cloned().collect();
            let disk = self.disks.layers(&images, packing == Packing::Partitions);
            let mut partition = 1;
            for layer in facts {
                let mount_point = names::layer(id, storages.len());
                let mut storage = PlannedStorage::of_disk(disk, layer.fs_type.clone(), mount_point);
                storage.layer_images = images_of(layer).count();
                storage.options.push("ro".to_owned());
                if packing == Packing::Partitions {
                    storage.options.push("X-kata.gpt-partitioned=true".to_owned());
                    storage.options.push(format!("X-kata.partition-number={partition}"));
                }
                let end = partition + storage.layer_images;
                let blobs = (partition + 1..end).map(|number| format!("{BLOB_PARTITION}={number}"));
                storage.options.extend(blobs);
                storage.options.extend(layer.verity.iter().flat_map(verity::of_layer));
                storages.push(storage);
                partition = end;
            }
        }
        Ok(storages)
    }

    /// Writes stay in the guest's memory.
    fn overlay_in_memory(&mut self, layers: Vec<PlannedStorage>) -> GuestPath {
        let id = &self.request.container;
        let (base, rootfs) = (names::container(id), names::rootfs(id));
        let [upper, work] = ["fs", "work"].map(|name| names::child(&base, name));
        let lower: Vec<&str> = layers.iter().map(|layer| layer.mount_point.as_str()).collect();
        let mut overlay =
            PlannedStorage::in_guest(StorageDriver::Overlay, "overlay", "overlay", rootfs.clone());
        overlay.driver_options = [&upper, &work].map(|path| format!("{CREATE_DIRECTORY}={path}")).into();
        overlay.options = vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={upper}"),
            format!("workdir={work}"),
        ];
        self.storages.extend(layers.into_iter().chain([overlay]).map(|storage| (Order::Root, storage)));
        rootfs
    }

    /// Writes go to an image, which the agent mounts together with the layers.
    fn overlay_on_disk(
        &mut self,
        image: &WritableImage,
        facts: &DiskFacts,
        layers: &[LayerFacts],
    ) -> Result<GuestPath, PlanError> {
        // The agent knows no others.
        for (directory, known) in [(&image.upper, "upper"), (&image.work, "work")] {
            if directory != known {
                return Err(PlanError::Unsupported(Unsupported::Directory(directory.clone())));
            }
        }
        let made = image.directories.iter().map(made_in_image).collect::<Result<Vec<_>, _>>()?;
        let rootfs = names::rootfs(&self.request.container);
        let wanted =
            RootDisk { path: &image.image, make: image.make.as_ref(), must_write: true, read_only: false };
        let disk = self.root_disk(&wanted, facts)?;
        let mut upper = PlannedStorage::of_disk(disk, image.fs_type.clone(), rootfs.clone());
        upper.options = vec!["X-kata.overlay-upper".to_owned(), "X-kata.multi-layer=true".to_owned()];
        upper.options.extend(made.into_iter().map(|directory| format!("X-kata.mkdir.path={directory}")));
        let mut storages = vec![upper];
        for mut layer in self.layer_storages(layers)? {
            layer.mount_point = rootfs.clone();
            layer.options.extend(["X-kata.overlay-lower", "X-kata.multi-layer=true"].map(str::to_owned));
            storages.push(layer);
        }
        self.storages.extend(storages.into_iter().map(|storage| (Order::Root, storage)));
        Ok(rootfs)
    }

    fn root_disk(&mut self, wanted: &RootDisk<'_>, facts: &DiskFacts) -> Result<usize, PlanError> {
        let path = wanted.path;
        let access = decide_access(AccessFacts {
            must_write: wanted.must_write,
            read_only_mount: wanted.read_only,
            read_only_device: facts.read_only,
            ..AccessFacts::default()
        })?;
        let request = match (wanted.make, &facts.kind) {
            // It is not there yet.
            (Some(filesystem), None) => {
                self.images.push(ImagePlan { path: path.clone(), filesystem: filesystem.clone() });
                DeviceRequest { source: to_be_made(path), access, node: None }
            }
            (_, kind) => request_of_disk(path, kind.as_ref().unwrap_or(&PathKind::Other), access)?,
        };
        Ok(self.disks.alone(Part::Root, request, facts)?)
    }

    fn block(&mut self, block: &BlockRootfs, facts: &DiskFacts) -> Result<GuestPath, PlanError> {
        let (path, make, read_only) = (&block.source, block.make.as_ref(), block.read_only);
        let disk = self.root_disk(&RootDisk { path, make, must_write: false, read_only }, facts)?;
        let id = &self.request.container;
        let rootfs = names::rootfs(id);
        let is_whole = block.directory.is_empty();
        let at = if is_whole { rootfs.clone() } else { names::layer(id, 0) };
        let mut storage = PlannedStorage::of_disk(disk, block.fs_type.clone(), at.clone());
        let read_only = block.read_only || facts.read_only;
        storage.options = block_options(&block.fs_type, read_only, &block.options);
        self.storages.push((Order::Root, storage));
        if !is_whole {
            let directory = names::within(&at, &block.directory);
            let mut bind =
                PlannedStorage::in_guest(StorageDriver::Bind, directory.as_str(), "bind", rootfs.clone());
            for made in &block.directories {
                made_in_image(made)?;
                bind.driver_options.push(format!("{CREATE_DIRECTORY}={}", names::within(&at, &made.path)));
            }
            self.storages.push((Order::Root, bind));
        } else if let Some(made) = block.directories.first() {
            return Err(PlanError::Unsupported(Unsupported::Directory(made.path.clone())));
        }
        Ok(rootfs)
    }

    fn directory(
        &mut self,
        source: &HostPath,
        read_only: bool,
        facts: &DirectoryFacts,
    ) -> Result<(&'static str, GuestPath), PlanError> {
        let source = existing(source, facts)?;
        let id = &self.request.container;
        let name = format!("{id}-rootfs");
        let target = names::shared(&name);
        if self.policy.shared_fs == SharedFs::None {
            self.copies.push(CopyPlan {
                part: Part::Root,
                source: source.clone(),
                target: target.clone(),
                watched: false,
            });
            return Ok(("copied", target));
        }
        self.shares.push(SharePlan {
            part: Part::Root,
            source: source.clone(),
            name,
            read_only,
            recursive: true,
            follow: false,
            watched: false,
        });
        Ok(("shared", target))
    }

    fn nydus(&mut self, nydus: &NydusExtra, facts: &DirectoryFacts) -> Result<GuestPath, PlanError> {
        let snapshot_dir = existing(&nydus.snapshot_dir, facts)?;
        let id = &self.request.container;
        if self.policy.shared_fs != SharedFs::Nydus {
            return Err(PlanError::Unsupported(Unsupported::Nydus(self.policy.shared_fs)));
        }
        self.shares.push(SharePlan {
            part: Part::Root,
            source: snapshot_dir.clone(),
            name: names::snapshot(id, 0),
            read_only: false,
            recursive: false,
            follow: false,
            watched: false,
        });
        self.services.push(ServicePlan::Nydusd {
            source: nydus.source.clone(),
            config: nydus.config.clone(),
            target: names::rafs(id, 0),
        });
        let rootfs = names::rootfs(id);
        let mut overlay =
            PlannedStorage::in_guest(StorageDriver::Overlay, "overlay", "overlay", rootfs.clone());
        overlay.options = overlay_of_nydus(id, 0);
        self.storages.push((Order::Root, overlay));
        Ok(rootfs)
    }

    fn virtual_volumes(
        &mut self,
        volumes: &[VirtualVolume],
        facts: &[DiskFacts],
    ) -> Result<(GuestPath, usize), PlanError> {
        let is_layer = |volume: &VirtualVolume| volume.volume_type == VolumeType::LayerRawBlock;
        if volumes.iter().all(is_layer) {
            let mut layers = Vec::new();
            for (volume, facts) in volumes.iter().zip(facts) {
                check_verity(volume)?;
                let path = volume_path(volume)?;
                let kind = facts.kind.as_ref().unwrap_or(&PathKind::Other);
                let image = request_of_disk(&path, kind, Access::ReadOnly)?.source;
                let fs_type = volume.fs_type.clone();
                layers.push((volume, LayerFacts { image, blobs: Vec::new(), fs_type, verity: None }));
            }
            let facts: Vec<LayerFacts> = layers.iter().map(|(_, facts)| facts.clone()).collect();
            let mut storages = self.layer_storages(&facts)?;
            for (storage, volume) in storages.iter_mut().zip(volumes) {
                storage.options.extend(volume.dm_verity.iter().flat_map(verity::of_volume));
            }
            return Ok((self.overlay_in_memory(storages), volumes.len()));
        }
        let ([volume], [facts]) = (volumes, facts) else {
            return Err(PlanError::Unsupported(Unsupported::VirtualVolumes(volumes.len())));
        };
        if !matches!(volume.volume_type, VolumeType::DirectBlock | VolumeType::ImageRawBlock) {
            return Err(PlanError::Unsupported(Unsupported::VirtualVolume(volume.volume_type)));
        }
        check_verity(volume)?;
        let path = volume_path(volume)?;
        let read_only = volume.dm_verity.is_some() || volume.options.iter().any(|option| option == "ro");
        let wanted = RootDisk { path: &path, make: None, must_write: false, read_only };
        let disk = self.root_disk(&wanted, facts)?;
        let rootfs = names::rootfs(&self.request.container);
        let mut storage = PlannedStorage::of_disk(disk, volume.fs_type.clone(), rootfs.clone());
        storage.options = block_options(&volume.fs_type, read_only || facts.read_only, &volume.options);
        storage.options.extend(volume.dm_verity.iter().flat_map(verity::of_volume));
        self.storages.push((Order::Root, storage));
        Ok((rootfs, 0))
    }
}

/// The overlay of an image of nydus and the snapshot that goes with it.
pub(super) fn overlay_of_nydus(id: &ContainerId, number: u32) -> Vec<String> {
    let (snapshot, rafs) = (names::shared(&names::snapshot(id, number)), names::rafs(id, number));
    vec![
        format!("upperdir={snapshot}/fs"),
        format!("workdir={snapshot}/work"),
        format!("lowerdir={rafs}"),
        "index=off".to_owned(),
    ]
}

/// How layers are put on disks. One layer twice is one disk, which the guest can only mount once for an overlay;
/// partitions with the same content are told apart. So are the blobs of a layer from its metadata. Block devices of
/// the host are no partitions: QEMU joins only what it is passed as an open file, and takes no device that way.
fn packing(facts: &[LayerFacts]) -> Result<Packing, PlanError> {
    let identities: BTreeSet<_> = facts.iter().map(|layer| layer.image.identity()).collect();
    let has_blobs = facts.iter().any(|layer| !layer.blobs.is_empty());
    let must_join = has_blobs || identities.len() < facts.len();
    let is_device = |image: &&DeviceSource| !matches!(image, DeviceSource::File { .. });
    let device = facts.iter().map(|layer| &layer.image).filter(is_device).find_map(path_of);
    match (must_join, device) {
        (true, Some(path)) => Err(PlanError::Unsupported(Unsupported::BlockLayer(path.clone()))),
        (true, None) => Ok(Packing::Partitions),
        (false, Some(_)) => Ok(Packing::DiskPerLayer),
        (false, None) => Ok(Packing::for_layers(facts.len())),
    }
}

/// All images of a layer, its own first.
fn images_of(layer: &LayerFacts) -> impl Iterator<Item = &DeviceSource> {
    std::iter::once(&layer.image).chain(&layer.blobs)
}

/// The layers of each disk, in their order. The images of one layer stay together.
fn filled(layers: &[LayerFacts], most: usize) -> Result<Vec<&[LayerFacts]>, PlanError> {
    let (mut disks, mut first, mut images) = (Vec::new(), 0, 0);
    for (index, layer) in layers.iter().enumerate() {
        let more = images_of(layer).count();
        if let (true, Some(path)) = (more > most, path_of(&layer.image)) {
            let refusal = Unsupported::Blobs { image: path.clone(), blobs: more - 1, most: most - 1 };
            return Err(PlanError::Unsupported(refusal));
        }
        if images + more > most {
            disks.push(&layers[first..index]);
            (first, images) = (index, 0);
        }
        images += more;
    }
    disks.push(&layers[first..]);
    Ok(disks)
}

/// The disk that a root, or what is written of it, is on.
struct RootDisk<'a> {
    path: &'a HostPath,
    make: Option<&'a MakeFilesystem>,
    must_write: bool,
    read_only: bool,
}

/// An image that is not there yet: no file has the inode 0.
fn to_be_made(path: &HostPath) -> DeviceSource {
    let device = DeviceNumber::new(0, 0).expect("numbers that a file system may have");
    DeviceSource::File { file: FileId { device, inode: 0 }, path: path.clone() }
}

/// The options of a file system on a disk. What stands for a loop device of the host, or for writing, is
/// decided already.
pub(super) fn block_options(fs_type: &str, read_only: bool, given: &[String]) -> Vec<String> {
    let mut options = Vec::new();
    if read_only {
        options.push("ro".to_owned());
    }
    let decided = ["ro", "rw", "loop"];
    options.extend(given.iter().filter(|option| !decided.contains(&option.as_str())).cloned());
    // Two snapshots of one file system have the same UUID, and XFS refuses the second.
    if fs_type == "xfs" && !options.iter().any(|option| option == "nouuid") {
        options.push("nouuid".to_owned());
    }
    options
}

/// Whether an option of the host's overlay makes no difference to the guest's: its upper directory is for
/// this container alone, so there is nothing to index and nothing to lose.
fn is_for_the_host(option: &str) -> bool {
    let safe = ["ro", "rw", "index=off", "index=on", "volatile", "xino=off", "xino=on", "xino=auto"];
    safe.contains(&option)
}

/// A directory in an image, in the words of the agent, which makes it as root.
fn made_in_image(directory: &MakeDirectory) -> Result<String, PlanError> {
    match directory.owner {
        None | Some((0, 0)) => Ok(format!("{{{{ mount 0 }}}}/{}:{:04o}", directory.path, directory.mode)),
        Some(_) => Err(PlanError::Unsupported(Unsupported::Directory(directory.path.clone()))),
    }
}

/// The agent takes all that is before the hashes for data.
fn check_verity(volume: &VirtualVolume) -> Result<(), PlanError> {
    match &volume.dm_verity {
        Some(verity) if verity.offset != verity.blocksize * verity.blocknum => {
            Err(PlanError::Unsupported(Unsupported::VerityGap { offset: verity.offset }))
        }
        _ => Ok(()),
    }
}

fn volume_path(volume: &VirtualVolume) -> Result<HostPath, PlanError> {
    let incomplete = || PlanError::Unsupported(Unsupported::Incomplete(volume.source.clone()));
    if volume.fs_type.is_empty() {
        return Err(incomplete());
    }
    HostPath::new(&volume.source).map_err(|_| incomplete())
}

/// The directory by its path without links, if it is one.
fn existing<'a>(given: &'a HostPath, facts: &'a DirectoryFacts) -> Result<&'a HostPath, PlanError> {
    match facts.kind {
        Some(PathKind::Directory) => Ok(facts.resolved.as_ref().unwrap_or(given)),
        _ => Err(PlanError::NoDirectory(given.clone())),
    }
}

fn directory_reason(reason: String, facts: &DirectoryFacts) -> String {
    match &facts.mounted_from {
        Some(device) => format!(
            "{reason}; {device} below it is mounted on this host, and a disk that the host uses is never plugged"
        ),
        None => reason,
    }
}
