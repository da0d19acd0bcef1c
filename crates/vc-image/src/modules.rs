//! Which kernel modules go into the guest image, in which order they load, and what depends on what.
//!
//! Soft dependencies (`softdep=`, and algorithms asked for by name) are not followed; where one matters, it is named here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use elf::ElfBytes;
use elf::endian::LittleEndian;

use crate::decompress::decompress;
use crate::file::FileError;
use crate::{DecompressError, file};

/// What every start needs; `vc-guest` loads these, and what they depend on, before it does anything else.
/// Each costs the start 2 to 20 ms under emulation, so a module that only some containers need belongs to [`ON_DEMAND`].
/// `crc32c_generic` is what `libcrc32c`, and with it `erofs`, asks the kernel for by a name that no dependency tells;
/// Debian's cloud kernel has it built in, its general one does not.
const BOOT: [&str; 6] =
    ["virtio_pci", "vmw_vsock_virtio_transport", "virtio_blk", "crc32c_generic", "erofs", "overlay"];

/// What `vc-guest` can load when a device, a file system or a mount asks for it.
const ON_DEMAND: [&str; 35] = [
    // Devices on virtio.
    "virtio_mmio",
    "virtio_scsi",
    "sd_mod",
    "virtio_console",
    "virtio_rng",
    "virtio_net",
    "virtio_mem",
    "virtio_balloon",
    "virtio_pmem",
    "virtio_input",
    "pvpanic_pci",
    // Persistent memory and DAX.
    "nfit",
    "nd_pmem",
    "nd_btt",
    "device_dax",
    "dax_pmem",
    "kmem",
    // File systems and what lies below them.
    "fuse",
    "virtiofs",
    "ext4",
    "xfs",
    "squashfs",
    "isofs",
    "loop",
    "dm_mod",
    "dm_verity",
    "dm_crypt",
    "sha256_generic",
    // Networks of containers.
    "veth",
    "bridge",
    "tun",
    "af_packet",
    // Sockets between guest processes, and their inspection.
    "vsock_loopback",
    "vsock_diag",
    "unix_diag",
];

/// The modules of a kernel cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    /// The list of what the kernel has built in cannot be read.
    #[error("could not read modules.builtin in {}; is that as `make modules_install` writes it?", tree.display())]
    NotInstalled {
        /// The directory.
        tree: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What every start needs is neither there nor built in.
    #[error("{} has no module {}, which every start needs", tree.display(), names.join(", "))]
    Missing {
        /// The directory.
        tree: PathBuf,
        /// The modules.
        names: Vec<String>,
    },
    /// A module cannot be used.
    #[error("could not use the module {}", path.display())]
    Module {
        /// The module.
        path: PathBuf,
        /// Why not.
        source: ModuleError,
    },
    /// The system refused something.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It cannot be decompressed.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// It is no ELF file.
    #[error("it is no ELF file that can be read")]
    Elf(#[from] elf::ParseError),
    /// It does not tell which kernel it is for, and what it depends on.
    #[error("it has no .modinfo section that can be read")]
    NoInfo,
    /// It works only with another kernel.
    #[error("it is built for kernel {built_for}, the kernel is {release}")]
    OtherKernel {
        /// The kernel's release that it was built for.
        built_for: String,
        /// The release of the kernel.
        release: String,
    },
}

/// Names of modules.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Loaded at each start; none may be missing.
    pub boot: &'a [&'a str],
    /// At hand if the kernel has them.
    pub on_demand: &'a [&'a str],
}

/// What a guest of `vc` wants.
pub const GUEST: Wanted<'static> = Wanted { boot: &BOOT, on_demand: &ON_DEMAND };

/// One module, uncompressed, and the names of those it needs.
#[derive(Debug)]
pub struct Module {
    /// The name as the kernel knows it, with `_` where the file's name may have `-`.
    pub name: String,
    /// The module's bytes, as built: its signature is kept.
    pub data: Vec<u8>,
    /// Whether every start loads it.
    pub boot: bool,
    depends: Vec<String>,
}

/// The modules of an image: each stands behind those that it depends on.
#[derive(Debug, Default)]
pub struct ModuleSet {
    /// In load order.
    pub modules: Vec<Module>,
    /// Wanted, but the kernel has them built in.
    pub built_in: Vec<String>,
    /// Wanted, but this kernel was built without them.
    pub absent: Vec<String>,
}

impl ModuleSet {
    /// Collects the wanted modules from `tree`, a directory as `make modules_install` writes it
    /// (`/lib/modules/RELEASE`), for a kernel of this release.
    pub(crate) fn collect(tree: &Path, release: &str, wanted: &Wanted<'_>) -> Result<Self, ModulesError> {
        let mut collector = Collector::open(tree, release)?;
        for name in wanted.boot {
            collector.add(name, true)?;
        }
        if !collector.set.absent.is_empty() {
            return Err(ModulesError::Missing { tree: tree.to_owned(), names: collector.set.absent });
        }
        for name in wanted.on_demand {
            collector.add(name, false)?;
        }
        Ok(collector.set)
    }

    /// `modules.boot`: what to load at each start, one name per line, in this order.
    pub fn boot_list(&self) -> String {
        self.modules.iter().filter(|module| module.boot).map(|module| format!("{}\n", module.name)).collect()
    }

    /// `modules.dep` as kmod's `depmod` writes it: behind each module all that it needs, the last to be loaded first.
    pub fn dependency_list(&self) -> String {
        let line = |module: &Module| {
            let needs = self.needs(module).iter().rev().map(|name| format!(" {name}.ko")).collect::<String>();
            format!("{}.ko:{needs}\n", module.name)
        };
        self.modules.iter().map(line).collect()
    }

    /// `modules.builtin` as `make modules_install` writes it, as far as somebody may ask for it.
    pub fn built_in_list(&self) -> String {
        self.built_in.iter().map(|name| format!("{name}.ko\n")).collect()
    }

    /// All that `module` needs, directly or not, in load order.
    fn needs(&self, module: &Module) -> Vec<&str> {
        let mut needed: BTreeSet<&str> = module.depends.iter().map(String::as_str).collect();
        let mut ordered = Vec::new();
        // From the last to the first, since a module stands behind all that it depends on.
        for candidate in self.modules.iter().rev() {
            if needed.contains(candidate.name.as_str()) {
                needed.extend(candidate.depends.iter().map(String::as_str));
                ordered.push(candidate.name.as_str());
            }
        }
        ordered.reverse();
        ordered
    }
}

struct Collector<'a> {
    release: &'a str,
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    set: ModuleSet,
}

impl<'a> Collector<'a> {
    fn open(tree: &Path, release: &'a str) -> Result<Self, ModulesError> {
        let list = tree.join("modules.builtin");
        let built_in = fs::read_to_string(&list)
            .map_err(|source| ModulesError::NotInstalled { tree: tree.to_owned(), source })?;
        let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut files = BTreeMap::new();
        index(tree, &mut files).map_err(FileError::of("list", tree))?;
        Ok(Self { release, files, built_in, set: ModuleSet::default() })
    }

    fn add(&mut self, name: &str, boot: bool) -> Result<(), ModulesError> {
        if self.set.modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if self.built_in.contains(name) {
            self.set.built_in.push(name.to_owned());
            return Ok(());
        }
        let Some(path) = self.files.get(name).cloned() else {
            self.set.absent.push(name.to_owned());
            return Ok(());
        };
        let data = file::read(&path)?;
        let (data, depends) =
            read(data, self.release).map_err(|source| ModulesError::Module { path, source })?;
        for needed in &depends {
            self.add(needed, boot)?;
        }
        self.set.modules.push(Module { name: name.to_owned(), data, boot, depends });
        Ok(())
    }
}

fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Not followed: `build` and `source` are links to the kernel's whole source tree.
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `nd_pmem` for `…/nd_pmem.ko` as for `…/nd-pmem.ko.xz`; `None` for what is no module.
fn module_name(path: &Path) -> Option<String> {
    let (stem, suffix) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(suffix, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

/// The module, uncompressed, and what it depends on.
fn read(data: Vec<u8>, release: &str) -> Result<(Vec<u8>, Vec<String>), ModuleError> {
    let data = if data.starts_with(b"\x7fELF") { data } else { decompress(&data)? };
    let depends = dependencies(&data, release)?;
    Ok((data, depends))
}

/// What the module's `.modinfo` section says it depends on; refuses a module of another kernel.
fn dependencies(module: &[u8], release: &str) -> Result<Vec<String>, ModuleError> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(module)?;
    let section = file.section_header_by_name(".modinfo")?.ok_or(ModuleError::NoInfo)?;
    let (info, _) = file.section_data(&section)?;
    let value = |key: &[u8]| info.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(key));

    let text = |value| str::from_utf8(value).map_err(|_| ModuleError::NoInfo);
    let magic = text(value(b"vermagic=").ok_or(ModuleError::NoInfo)?)?;
    let built_for = magic.split(' ').next().unwrap_or_default();
    if built_for != release {
        return Err(ModuleError::OtherKernel {
            built_for: built_for.to_owned(),
            release: release.to_owned(),
        });
    }
    let depends = text(value(b"depends=").unwrap_or_default())?;
    Ok(depends.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, boot: bool, depends: &[&str]) -> Module {
        let depends = depends.iter().map(ToString::to_string).collect();
        Module { name: name.into(), data: Vec::new(), boot, depends }
    }

    fn set() -> ModuleSet {
        let modules = vec![
            module("virtio", true, &[]),
            module("virtio_ring", true, &["virtio"]),
            module("virtio_pci", true, &["virtio_ring", "virtio"]),
            module("failover", false, &[]),
            module("virtio_net", false, &["failover", "virtio_ring"]),
        ];
        ModuleSet { modules, ..ModuleSet::default() }
    }

    #[test]
    fn the_boot_list_is_in_load_order() {
        assert_eq!(set().boot_list(), "virtio\nvirtio_ring\nvirtio_pci\n");
    }

    #[test]
    fn dependencies_are_listed_whole_and_last_first() {
        let expected = "virtio.ko:\n\
            virtio_ring.ko: virtio.ko\n\
            virtio_pci.ko: virtio_ring.ko virtio.ko\n\
            failover.ko:\n\
            virtio_net.ko: failover.ko virtio_ring.ko virtio.ko\n";
        assert_eq!(set().dependency_list(), expected);
    }

    #[test]
    fn a_module_is_known_by_its_kernel_name() {
        let cases = [
            ("kernel/a/virtio-rng.ko", Some("virtio_rng")),
            ("dm-verity.ko.xz", Some("dm_verity")),
            ("a/modules.dep", None),
            ("x.ko.bak", None),
        ];
        for (path, name) in cases {
            assert_eq!(module_name(Path::new(path)).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn a_tree_without_modules_is_refused() {
        let tree = tempfile::tempdir().unwrap();
        let error = ModuleSet::collect(tree.path(), "6.1.0", &GUEST).unwrap_err();
        assert!(matches!(error, ModulesError::NotInstalled { .. }), "{error}");
        fs::write(tree.path().join("modules.builtin"), "kernel/fs/overlayfs/overlay.ko\n").unwrap();
        let error = ModuleSet::collect(tree.path(), "6.1.0", &GUEST).unwrap_err();
        assert!(error.to_string().contains("has no module virtio_pci"), "{error}");
        assert!(!error.to_string().contains("overlay"), "a module that is built in is not missing: {error}");
    }
}
