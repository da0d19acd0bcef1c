//! Many images as one disk: a partition table and the images, joined by a VMDK descriptor.
//!
//! VMDK is the one format of QEMU that puts files one behind the other (`createType` "monolithicFlat",
//! extents of the kind FLAT). The descriptor names each file by the number of its descriptor set, so no
//! path is opened.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;
use vc_device::{Access, PartitionedSpec};

use crate::devices::Taken;

use super::block::{delete_node, disk};
use super::gpt::{Layout, SECTOR};
use super::recipe::{Command, Recipe, SetNumbers, backend};

/// How to plug a disk of images.
///
/// # Errors
/// Those of memfd_create(2) and of writing to memory.
pub(crate) fn recipe(spec: &PartitionedSpec, taken: Taken, sets: &SetNumbers<'_>) -> io::Result<Recipe> {
    let layout = Layout::new(spec.images().iter().map(|image| image.size));
    let mut recipe = Recipe::default();
    let table = recipe.pass_file(sets.next(), &table(&layout)?);
    let mut images = Vec::new();
    for image in spec.images() {
        images.push(recipe.pass_file(sets.next(), &image.file));
    }
    let descriptor =
        in_memory(c"vmdk", |file| file.write_all_at(descriptor(&layout, &table, &images).as_bytes(), 0))?;
    let path = recipe.pass_file(sets.next(), &descriptor);
    let node = backend(spec.id());
    let add = json!({
        "node-name": node,
        "driver": "vmdk",
        "read-only": true,
        "auto-read-only": false,
        // The images, which inherit it, may be open elsewhere.
        "force-share": true,
        "file": {"driver": "file", "filename": path, "read-only": true, "locking": "off"},
    });
    recipe.make("join the images", Command::new("blockdev-add", add), delete_node(node));
    recipe.device("add the disk", disk(spec.id(), taken, spec.serial(), Access::ReadOnly, None));
    Ok(recipe)
}

/// The table as a file as long as the disk, with holes where the images go; so it fills the gaps, too.
fn table(layout: &Layout) -> io::Result<Arc<File>> {
    in_memory(c"gpt", |file| {
        file.set_len(layout.sectors * SECTOR)?;
        file.write_all_at(&layout.head(), 0)?;
        let (first, tail) = layout.tail();
        file.write_all_at(&tail, first * SECTOR)
    })
}

/// VMDK's text. "RW" since QEMU passes over other extents; the node is read-only.
fn descriptor(layout: &Layout, table: &str, images: &[String]) -> String {
    let mut text = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\n"
        .to_owned();
    let mut extent = |sectors: u64, path: &str, offset: u64| {
        if sectors > 0 {
            text += &format!("RW {sectors} FLAT \"{path}\" {offset}\n");
        }
    };
    let mut filled = 0;
    for ((first, sectors), image) in layout.partitions.iter().zip(images) {
        extent(first - filled, table, filled);
        extent(*sectors, image, 0);
        filled = first + sectors;
    }
    extent(layout.sectors - filled, table, filled);
    text
}

/// A file in memory that nobody can change any more, open for reading: QEMU takes a descriptor only for
/// what it is open for.
fn in_memory(name: &std::ffi::CStr, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<Arc<File>> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    fill(&file)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
    let flags = OFlag::O_CLOEXEC.bits();
    Ok(Arc::new(File::options().read(true).custom_flags(flags).open(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Wanted;
    use crate::plug::recipe::text;
    use crate::plug::testing::{assert_golden, file, name, place, sets};
    use vc_device::PartitionImage;

    #[test]
    fn three_layers_of_which_one_ends_within_a_block() {
        let image = |size| PartitionImage { file: file(), name: name(), size };
        let images = [4096, 512, 8192].map(image).into();
        let serial = Some("layers".parse().unwrap());
        let spec = PartitionedSpec::new("d0".parse().unwrap(), images, serial).unwrap();
        let recipe = sets(|sets| recipe(&spec, place(Wanted::Disk, 8, 0), sets).unwrap());
        assert_golden("partitioned.txt", &text(&recipe));
        let layout = Layout::new([4096, 512, 8192]);
        let paths = [1, 2, 3].map(|set| format!("/dev/fdset/{set}"));
        let vmdk = descriptor(&layout, "/dev/fdset/0", &paths);
        assert_golden("partitioned.vmdk", vmdk.trim_end());
    }

    #[test]
    fn the_table_in_memory_is_as_long_as_the_disk_and_cannot_change() {
        let layout = Layout::new([4096]);
        let table = table(&layout).unwrap();
        assert_eq!(table.metadata().unwrap().len(), layout.sectors * SECTOR);
        assert!(table.write_all_at(b"x", 0).is_err());
        let mut signature = [0; 8];
        table.read_exact_at(&mut signature, (layout.sectors - 1) * SECTOR).unwrap();
        assert_eq!(&signature, b"EFI PART");
    }
}
