//! A host that is made up.

use vc_device::{DeviceSource, FileId, PathKind, PmemBacking};
use vc_storage::{
    ContainerMount, DirectVolume, DirectoryFacts, DiskFacts, FsGroupOf, LayerFacts, LayerSource, Layers,
    Mount, MountFacts, RootFacts, Rootfs, StorageRequest, Upper, VerityFacts, VerityRoot,
};
use vc_types::{DeviceNumber, HostPath};

pub(crate) fn raw_mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { kind: kind.into(), source: source.into(), options }
}

pub(crate) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> ContainerMount {
    ContainerMount { destination: destination.into(), mount: raw_mount(kind, source, options) }
}

pub(crate) fn bind(destination: &str, source: &str) -> ContainerMount {
    mount(destination, "bind", source, &["rbind", "rw"])
}

pub(crate) fn block(major: u32, minor: u32) -> PathKind {
    PathKind::Block(DeviceNumber::new(major, minor).unwrap())
}

pub(crate) fn character() -> PathKind {
    PathKind::Character(DeviceNumber::new(1, 3).unwrap())
}

fn file_id(inode: u64) -> FileId {
    FileId { device: DeviceNumber::new(8, 1).unwrap(), inode }
}

pub(crate) fn file(inode: u64) -> PathKind {
    PathKind::Regular(file_id(inode))
}

pub(crate) fn directory() -> MountFacts {
    MountFacts { kind: Some(PathKind::Directory), ..MountFacts::default() }
}

pub(crate) fn volume_info() -> DirectVolume {
    DirectVolume {
        device: HostPath::new("/dev/sdc").unwrap(),
        fs_type: "ext4".into(),
        options: vec!["rw".into(), "noatime".into()],
        fs_group: Some(FsGroupOf { id: 2000, on_root_mismatch: true }),
    }
}

pub(crate) fn pmem() -> PmemBacking {
    PmemBacking {
        file: file_id(11),
        path: HostPath::new("/images/dax").unwrap(),
        has_signature: true,
        fs_type: Some("ext4".into()),
    }
}

pub(crate) fn one_layer() -> Rootfs {
    let image = HostPath::new("/layers/0").unwrap();
    let layers = vec![LayerSource::Image { image, devices: Vec::new(), verity: None }];
    Rootfs::Layers(Layers { layers, upper: Upper::Memory { unused: None }, options: Vec::new() })
}

pub(crate) fn request(rootfs: Rootfs, mounts: Vec<ContainerMount>) -> StorageRequest {
    let huge_pages = [(2 << 20, 64 << 20)].into();
    StorageRequest { container: "web".parse().unwrap(), rootfs, mounts, huge_pages }
}

/// Facts that go with a root: each layer is a file of its own, each disk is there and free.
pub(crate) fn facts_of_root(rootfs: &Rootfs) -> RootFacts {
    let disk = |path: &HostPath, made: bool| {
        let is_device = path.as_path().starts_with("/dev");
        let kind = if is_device { block(253, 7) } else { file(99) };
        DiskFacts { kind: (!made).then_some(kind), ..DiskFacts::default() }
    };
    match rootfs {
        Rootfs::Layers(layers) => {
            let facts = |(n, layer): (usize, &LayerSource)| {
                let (path, is_verified) = match layer {
                    LayerSource::MountedAt(directory) => (directory.clone(), false),
                    LayerSource::Image { image, verity, .. } => (image.clone(), verity.is_some()),
                };
                let file = file_id(100 + n as u64);
                let root = VerityRoot { root_hash: "ab".repeat(32), hash_offset: 8192, salt: None };
                let verity = VerityFacts { root, has_superblock: n == 0, data_block: 4096, hash_block: 4096 };
                let image = DeviceSource::File { file, path };
                let devices = match layer {
                    LayerSource::Image { devices, .. } => devices.as_slice(),
                    LayerSource::MountedAt(_) => &[],
                };
                let blob = |(m, path): (usize, &HostPath)| {
                    let file = file_id(1000 + 100 * n as u64 + m as u64);
                    DeviceSource::File { file, path: path.clone() }
                };
                let blobs = devices.iter().enumerate().map(blob).collect();
                LayerFacts { image, blobs, fs_type: "erofs".into(), verity: is_verified.then_some(verity) }
            };
            let upper = match &layers.upper {
                Upper::Image(image) => Some(disk(&image.image, image.make.is_some())),
                Upper::Memory { .. } => None,
            };
            RootFacts::Layers { layers: layers.layers.iter().enumerate().map(facts).collect(), upper }
        }
        Rootfs::Block(block) => RootFacts::Disk(disk(&block.source, block.make.is_some())),
        Rootfs::Directory { .. } | Rootfs::Nydus(_) => RootFacts::Directory(DirectoryFacts {
            kind: Some(PathKind::Directory),
            resolved: None,
            mounted_from: Some(HostPath::new("/dev/sda1").unwrap()),
        }),
        Rootfs::Volumes { volumes } => {
            let facts = |source: &str| match HostPath::new(source) {
                Ok(path) => disk(&path, false),
                Err(_) => DiskFacts::default(),
            };
            RootFacts::Disks(volumes.iter().map(|volume| facts(&volume.source)).collect())
        }
        other => panic!("no facts for {other:?}"),
    }
}
