//! How long a plan takes without the look-ups: `cargo xtask bench plan`.
//!
//! 128 layers and 200 mounts of every kind are planned again and again; the facts are made up once.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use vc_device::{DeviceSource, FileId, PathKind};
use vc_storage::{
    ContainerMount, DiskFacts, HostFacts, LayerFacts, Mount, MountFacts, MountPolicy, RootFacts, Rootfs,
    SharedFs, StorageRequest, plan,
};
use vc_types::{DeviceNumber, HostPath};

const LAYERS: usize = 128;
const MOUNTS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(2000), |rounds| rounds.parse())?;
    let (request, facts) = world()?;
    let mut best = Duration::MAX;
    let mut all = Vec::new();
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        black_box(plan(black_box(&request), black_box(&facts), MountPolicy::new(SharedFs::VirtioFs))?);
        let took = start.elapsed();
        best = best.min(took);
        all.push(took);
    }
    all.sort();
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    println!("plan of {LAYERS} layers and {MOUNTS} mounts, {rounds} rounds:");
    println!(
        "median {:.0} us, least {:.0} us, most {:.0} us",
        us(all[all.len() / 2]),
        us(best),
        us(all[all.len() - 1])
    );
    Ok(())
}

fn world() -> Result<(StorageRequest, HostFacts), Box<dyn Error>> {
    let file =
        |inode| -> Result<FileId, Box<dyn Error>> { Ok(FileId { device: DeviceNumber::new(8, 1)?, inode }) };
    let mut list: Vec<Mount> = (0..LAYERS)
        .map(|n| Mount {
            kind: "erofs".into(),
            source: format!("/layers/{n}/layer.erofs"),
            options: vec!["ro".into()],
        })
        .collect();
    let options = vec![format!("lowerdir={{{{ overlay 0 {} }}}}", LAYERS - 1)];
    list.push(Mount { kind: "format/overlay".into(), source: "overlay".into(), options });
    let mut layers = Vec::new();
    for n in 0..LAYERS {
        let path = HostPath::new(format!("/layers/{n}/layer.erofs"))?;
        let image = DeviceSource::File { file: file(n as u64 + 1)?, path };
        layers.push(LayerFacts { image, blobs: Vec::new(), fs_type: "erofs".into(), verity: None });
    }
    let (mut mounts, mut known) = (Vec::new(), Vec::new());
    for n in 0..MOUNTS {
        let kind = PathKind::Block(DeviceNumber::new(8, 16 + u32::try_from(n)?)?);
        let (source, facts) = match n % 5 {
            0 => ("/proc".to_owned(), MountFacts::default()),
            1 => (
                format!("/srv/data/{n}"),
                MountFacts { kind: Some(PathKind::Directory), ..MountFacts::default() },
            ),
            2 => (
                format!("/srv/file/{n}"),
                MountFacts { kind: Some(PathKind::Regular(file(n as u64)?)), ..MountFacts::default() },
            ),
            3 => {
                let disk = DiskFacts { kind: Some(kind.clone()), ..DiskFacts::default() };
                (format!("/dev/disk/{n}"), MountFacts { kind: Some(kind), disk, ..MountFacts::default() })
            }
            _ => (
                format!("/pods/1/volumes/kubernetes.io~empty-dir/{n}"),
                MountFacts {
                    kind: Some(PathKind::Directory),
                    fs_type: Some("tmpfs".into()),
                    ..MountFacts::default()
                },
            ),
        };
        let mount = Mount { kind: "bind".into(), source, options: vec!["rbind".into(), "rw".into()] };
        mounts.push(ContainerMount { destination: format!("/mounts/{n}"), mount });
        known.push(facts);
    }
    let request = StorageRequest {
        container: "web".parse()?,
        rootfs: Rootfs::of_mounts(&list)?,
        mounts,
        huge_pages: std::collections::BTreeMap::new(),
    };
    Ok((request, HostFacts { root: RootFacts::Layers { layers, upper: None }, mounts: known }))
}
