//! Which kernel modules go into the guest image, in which order they load, and what depends on what.
//!
//! Soft dependencies (`softdep=`, and algorithms asked for by name) are not followed; where one matters, it is named here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::endian::LittleEndian;

use super::decompress::decompress;

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

/// Names of modules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Loaded at each start; none may be missing.
    pub(super) boot: &'a [&'a str],
    /// At hand if the kernel has them.
    pub(super) on_demand: &'a [&'a str],
}

/// What a guest of `vc` wants.
pub(super) const GUEST: Wanted<'static> = Wanted { boot: &BOOT, on_demand: &ON_DEMAND };

/// One module, uncompressed, and the names of those it needs.
#[derive(Debug)]
pub(super) struct Module {
    /// The name as the kernel knows it, with `_` where the file's name may have `-`.
    pub(super) name: String,
    /// The module's bytes, as built: its signature is kept.
    pub(super) data: Vec<u8>,
    /// Whether every start loads it.
    pub(super) boot: bool,
    depends: Vec<String>,
}

/// The modules of an image: each stands behind those that it depends on.
#[derive(Debug, Default)]
pub(super) struct ModuleSet {
    /// In load order.
    pub(super) modules: Vec<Module>,
    /// Wanted, but the kernel has them built in.
    pub(super) built_in: Vec<String>,
    /// Wanted, but this kernel was built without them.
    pub(super) absent: Vec<String>,
}

impl ModuleSet {
    /// Collects the wanted modules from `tree`, a directory as `make modules_install` writes it
    /// (`/lib/modules/RELEASE`), for a kernel of this release.
    pub(super) fn collect(tree: &Path, release: &str, wanted: &Wanted<'_>) -> Result<Self> {
        let mut collector = Collector::open(tree, release)?;
        for name in wanted.boot {
            collector.add(name, true)?;
        }
        if !collector.set.absent.is_empty() {
            bail!(
                "{} has no module {}, which every start needs",
                tree.display(),
                collector.set.absent.join(", ")
            );
        }
        for name in wanted.on_demand {
            collector.add(name, false)?;
        }
        Ok(collector.set)
    }

    /// `modules.boot`: what to load at each start, one name per line, in this order.
    pub(super) fn boot_list(&self) -> String {
        self.modules.iter().filter(|module| module.boot).map(|module| format!("{}\n", module.name)).collect()
    }

    /// `modules.dep` as kmod's `depmod` writes it: behind each module all that it needs, the last to be loaded first.
    pub(super) fn dependency_list(&self) -> String {
        let line = |module: &Module| {
            let needs = self.needs(module).iter().rev().map(|name| format!(" {name}.ko")).collect::<String>();
            format!("{}.ko:{needs}\n", module.name)
        };
        self.modules.iter().map(line).collect()
    }

    /// `modules.builtin` as `make modules_install` writes it, as far as somebody may ask for it.
    pub(super) fn built_in_list(&self) -> String {
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
    fn open(tree: &Path, release: &'a str) -> Result<Self> {
        let list = tree.join("modules.builtin");
        let built_in = fs::read_to_string(&list).with_context(|| {
            format!(
                "cannot read {}; is {} as `make modules_install` writes it?",
                list.display(),
                tree.display()
            )
        })?;
        let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut files = BTreeMap::new();
        index(tree, &mut files).with_context(|| format!("cannot list {}", tree.display()))?;
        Ok(Self { release, files, built_in, set: ModuleSet::default() })
    }

    fn add(&mut self, name: &str, boot: bool) -> Result<()> {
        if self.set.modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if self.built_in.contains(name) {
            self.set.built_in.push(name.to_owned());
            return Ok(());
        }
        let Some(file) = self.files.get(name).cloned() else {
            self.set.absent.push(name.to_owned());
            return Ok(());
        };
        let data = read(&file).with_context(|| format!("cannot use the module {}", file.display()))?;
        let depends =
            dependencies(&data, self.release).with_context(|| format!("module {}", file.display()))?;
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

fn read(file: &Path) -> Result<Vec<u8>> {
    let data = fs::read(file)?;
    if data.starts_with(b"\x7fELF") { Ok(data) } else { decompress(&data) }
}

/// What the module's `.modinfo` section says it depends on; refuses a module of another kernel.
fn dependencies(module: &[u8], release: &str) -> Result<Vec<String>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(module).context("no ELF file")?;
    let section = file.section_header_by_name(".modinfo")?.context("no .modinfo section")?;
    let (info, _) = file.section_data(&section)?;
    let value = |key: &[u8]| info.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(key));

    let magic = value(b"vermagic=").and_then(|magic| str::from_utf8(magic).ok()).context("no vermagic")?;
    let built_for = magic.split(' ').next().unwrap_or_default();
    if built_for != release {
        bail!("it is built for kernel {built_for}, the kernel is {release}");
    }
    let depends = str::from_utf8(value(b"depends=").unwrap_or_default())?;
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
        assert!(format!("{error:#}").contains("modules.builtin"), "{error:#}");
        fs::write(tree.path().join("modules.builtin"), "kernel/fs/overlayfs/overlay.ko\n").unwrap();
        let error = ModuleSet::collect(tree.path(), "6.1.0", &GUEST).unwrap_err();
        assert!(error.to_string().contains("has no module virtio_pci"), "{error:#}");
        assert!(
            !error.to_string().contains("overlay"),
            "a module that is built in is not missing: {error:#}"
        );
    }
}
