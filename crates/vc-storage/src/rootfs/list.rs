//! The list of mounts: the last one is the root, those before are what it refers to.

use std::path::Path;

use vc_mountinfo::OverlayOptions;
use vc_types::HostPath;

use super::nydus::{extra, is_nydus};
use super::options::{Sorted, sort};
use super::template::{Place, expand, place, shown};
use super::{
    BlockRootfs, InvalidOption, LayerSource, Layers, MakeDirectory, MountsError, Rootfs, Upper,
    VIRTUAL_VOLUME_OPTION, VirtualVolume, WritableImage,
};
use crate::mount::Mount;

/// File systems that a block device or an image may have.
const BLOCK_KINDS: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "btrfs"];

/// A mount without prefixes and templates.
struct Item<'a> {
    index: usize,
    kind: &'a str,
    source: String,
    options: Sorted,
}

pub(super) fn rootfs(mounts: &[Mount]) -> Result<Rootfs, MountsError> {
    if let Some(volumes) = volumes(mounts)? {
        return Ok(Rootfs::Volumes { volumes });
    }
    let items: Vec<Item<'_>> =
        mounts.iter().enumerate().map(|(index, _)| item(mounts, index)).collect::<Result<_, _>>()?;
    let (root, before) = items.split_last().ok_or(MountsError::NoMounts)?;
    for item in before {
        if item.kind != "erofs" && !BLOCK_KINDS.contains(&item.kind) {
            return Err(item.misplaced("before the last one"));
        }
    }
    let mut list = List { before, uses: vec![0; before.len()] };
    let rootfs = match root.kind {
        "overlay" => list.overlay(root)?,
        "bind" => list.bind(root)?,
        "erofs" => Rootfs::Layers(memory(vec![root.layer()?])),
        kind if is_nydus(kind) => Rootfs::Nydus(extra(&root.options.kernel)?),
        _ => Rootfs::Block(root.block(String::new(), Vec::new())?),
    };
    // No layer is lost, none is doubled.
    match list.uses.iter().position(|uses| *uses != 1) {
        Some(index) => Err(MountsError::Uses { index, uses: list.uses[index] }),
        None => Ok(rootfs),
    }
}

/// The volumes that options describe; `None` if no option does.
fn volumes(mounts: &[Mount]) -> Result<Option<Vec<VirtualVolume>>, MountsError> {
    let options = mounts.iter().flat_map(|mount| &mount.options);
    let values = options.filter_map(|option| option.strip_prefix(VIRTUAL_VOLUME_OPTION));
    let volumes: Vec<_> = values.map(VirtualVolume::from_base64).collect::<Result<_, _>>()?;
    Ok(if volumes.is_empty() { None } else { Some(volumes) })
}

fn item(mounts: &[Mount], index: usize) -> Result<Item<'_>, MountsError> {
    let mount = &mounts[index];
    let (mut format, mut mkfs, mut mkdir) = (false, false, false);
    let mut kind = mount.kind.as_str();
    loop {
        let (flag, rest) = match kind.split_once('/') {
            Some(("format", rest)) => (&mut format, rest),
            Some(("mkfs", rest)) => (&mut mkfs, rest),
            Some(("mkdir", rest)) => (&mut mkdir, rest),
            _ => break,
        };
        *flag = true;
        kind = rest;
    }
    let known = ["overlay", "bind", "erofs"].contains(&kind) || BLOCK_KINDS.contains(&kind) || is_nydus(kind);
    if !known || (mkfs && !BLOCK_KINDS.contains(&kind)) {
        return Err(MountsError::Kind { index, kind: mount.kind.clone() });
    }
    let expand = |text: &String| {
        expand(text, format, &mounts[..index]).map_err(|source| MountsError::Template { index, source })
    };
    let options: Vec<String> = mount.options.iter().map(expand).collect::<Result<_, _>>()?;
    let options = sort(options, mkfs, mkdir).map_err(|source| MountsError::Option { index, source })?;
    if options.verity.is_some() && kind != "erofs" {
        let source = InvalidOption::Unknown("X-containerd.dmverity".into());
        return Err(MountsError::Option { index, source });
    }
    Ok(Item { index, kind, source: expand(&mount.source)?, options })
}

impl Item<'_> {
    fn misplaced(&self, place: &'static str) -> MountsError {
        MountsError::Place { index: self.index, kind: self.kind.to_owned(), place }
    }

    fn path(&self, path: impl AsRef<Path>) -> Result<HostPath, MountsError> {
        HostPath::new(path).map_err(|source| MountsError::Path { index: self.index, source })
    }

    fn place(&self, path: &Path) -> Result<Place, MountsError> {
        place(path).map_err(|source| MountsError::Template { index: self.index, source })
    }

    fn refuse(&self, option: &str) -> MountsError {
        MountsError::Option { index: self.index, source: InvalidOption::Unknown(option.to_owned()) }
    }

    fn layer(&self) -> Result<LayerSource, MountsError> {
        let mut devices = Vec::new();
        for option in &self.options.kernel {
            match option.split_once('=') {
                Some(("device", path)) => devices.push(self.path(path)?),
                None if ["ro", "loop"].contains(&option.as_str()) => {}
                // It may say where the data is; a guess would show the container other files.
                _ => return Err(self.refuse(option)),
            }
        }
        let verity = self.options.verity.as_ref().map(|path| self.path(path)).transpose()?;
        Ok(LayerSource::Image { image: self.path(&self.source)?, devices, verity })
    }

    fn block(&self, directory: String, directories: Vec<MakeDirectory>) -> Result<BlockRootfs, MountsError> {
        let has = |wanted: &str| self.options.kernel.iter().any(|option| option == wanted);
        let hints = ["ro", "rw", "loop"];
        let options = self.options.kernel.iter().filter(|option| !hints.contains(&option.as_str()));
        Ok(BlockRootfs {
            source: self.path(&self.source)?,
            fs_type: self.kind.to_owned(),
            options: options.cloned().collect(),
            read_only: has("ro"),
            make: self.options.make.clone(),
            directory,
            directories,
        })
    }

    /// The directories to make, all of which are within one mount.
    fn directories(&self, within: usize) -> Result<Vec<MakeDirectory>, MountsError> {
        let make = |directory: &MakeDirectory| match self.place(directory.path.as_ref())? {
            Place::In { mount, below } if mount == within => {
                Ok(MakeDirectory { path: below, ..directory.clone() })
            }
            _ => Err(self.refuse(&format!("X-containerd.mkdir.path={}", shown(&directory.path)))),
        };
        self.options.directories.iter().map(make).collect()
    }
}

struct List<'a> {
    before: &'a [Item<'a>],
    uses: Vec<usize>,
}

impl<'a> List<'a> {
    fn use_mount(&mut self, mount: usize) -> &'a Item<'a> {
        self.uses[mount] += 1;
        &self.before[mount]
    }

    fn overlay(&mut self, root: &Item<'_>) -> Result<Rootfs, MountsError> {
        let overlay = OverlayOptions::from_mount_options(&root.options.kernel)?;
        let mut layers = Vec::new();
        for lower in overlay.lower {
            if lower.data_only {
                return Err(MountsError::DataOnly(lower.path));
            }
            layers.push(match root.place(&lower.path)? {
                Place::Host(path) => LayerSource::MountedAt(root.path(path)?),
                Place::In { mount, below } if below.is_empty() && self.before[mount].kind == "erofs" => {
                    self.use_mount(mount).layer()?
                }
                Place::In { mount, .. } => return Err(self.before[mount].misplaced("below an overlay")),
            });
        }
        let upper = match (overlay.upper, overlay.work) {
            (Some(upper), Some(work)) => self.upper(root, &upper, &work)?,
            // Without a work directory the kernel would not have mounted it; nothing of it is used.
            (upper, _) => memory_upper(root, upper.as_deref())?,
        };
        let is_directory = |option: &&str| {
            let name = option.split('=').next().unwrap_or_default();
            ["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"].contains(&name)
        };
        let options = root.options.kernel.iter().flat_map(|options| split(options));
        let options: Vec<String> =
            options.filter(|option| !is_directory(option)).map(str::to_owned).collect();
        if let Some(option) = options.iter().find(|option| shown(option) != **option) {
            return Err(root.refuse(&shown(option)));
        }
        Ok(Rootfs::Layers(Layers { layers, upper, options }))
    }

    fn upper(&mut self, root: &Item<'_>, upper: &Path, work: &Path) -> Result<Upper, MountsError> {
        let (mount, upper, work) = match (root.place(upper)?, root.place(work)?) {
            (Place::In { mount, below: upper }, Place::In { mount: same, below: work }) if mount == same => {
                (mount, upper, work)
            }
            (Place::Host(upper), Place::Host(_)) => return memory_upper(root, Some(&upper)),
            _ => return Err(root.misplaced("with its upper and work directory in two places")),
        };
        let image = self.use_mount(mount);
        if image.kind == "erofs" || image.options.kernel.iter().any(|option| option == "ro") {
            return Err(image.misplaced("above an overlay, since it cannot be written to"));
        }
        let block = image.block(String::new(), Vec::new())?;
        Ok(Upper::Image(WritableImage {
            image: block.source,
            fs_type: block.fs_type,
            make: block.make,
            upper,
            work,
            directories: root.directories(mount)?,
        }))
    }

    fn bind(&mut self, root: &Item<'_>) -> Result<Rootfs, MountsError> {
        let read_only = root.options.kernel.iter().any(|option| option == "ro");
        let (mount, below) = match root.place(root.source.as_ref())? {
            Place::Host(path) => return Ok(Rootfs::Directory { source: root.path(path)?, read_only }),
            Place::In { mount, below } => (mount, below),
        };
        let image = self.use_mount(mount);
        match image.kind {
            "erofs" if below.is_empty() => Ok(Rootfs::Layers(memory(vec![image.layer()?]))),
            "erofs" => Err(root.misplaced("on a part of a layer")),
            _ => {
                let block = image.block(below, root.directories(mount)?)?;
                Ok(Rootfs::Block(BlockRootfs { read_only: block.read_only || read_only, ..block }))
            }
        }
    }
}

/// Splits options that came as one text, where no backslash stands before the comma.
fn split(options: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    options.split(move |c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

fn memory(layers: Vec<LayerSource>) -> Layers {
    Layers { layers, upper: Upper::Memory { unused: None }, options: Vec::new() }
}

fn memory_upper(root: &Item<'_>, unused: Option<&Path>) -> Result<Upper, MountsError> {
    let unused = match unused.map(|path| root.place(path)).transpose()? {
        Some(Place::Host(path)) => Some(root.path(path)?),
        Some(Place::In { mount, .. }) => return Err(MountsError::Uses { index: mount, uses: 0 }),
        None => None,
    };
    Ok(Upper::Memory { unused })
}
