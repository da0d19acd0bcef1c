//! EROFS layers for tests, made with mkfs.erofs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A directory of layers, removed when dropped; anybody may read it.
#[derive(Debug)]
pub struct Layers {
    dir: TempDir,
}

impl Layers {
    /// An empty directory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vc-layers-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { dir }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A layer with busybox and its applets.
    ///
    /// # Panics
    /// When Debian's busybox-static or erofs-utils is missing.
    pub fn busybox(&self) -> PathBuf {
        self.layer("busybox", fill_with_busybox)
    }

    /// A layer of what `fill` puts into a directory.
    ///
    /// # Panics
    /// When mkfs.erofs is missing or fails.
    pub fn layer(&self, name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
        self.make(name, &[], fill)
    }

    /// The same as metadata, and the two blobs that have its data, in the order of its device table.
    ///
    /// # Panics
    /// When mkfs.erofs is missing or fails.
    pub fn layer_with_blobs(&self, name: &str, fill: impl FnOnce(&Path)) -> (PathBuf, [PathBuf; 2]) {
        let blob = self.dir.path().join(format!("{name}.blob"));
        let option = format!("--blobdev={}", blob.display());
        let image = self.make(name, &["--chunksize=4096", &option], fill);
        let (metadata, first, second) =
            split(fs::read(&image).expect("its own"), &fs::read(&blob).expect("its own"));
        fs::write(&image, metadata).expect("its own");
        let blobs = [("1", first), ("2", second)].map(|(number, data)| {
            let blob = blob.with_extension(format!("blob{number}"));
            fs::write(&blob, data).expect("a fresh name");
            blob
        });
        (image, blobs)
    }

    fn make(&self, name: &str, options: &[&str], fill: impl FnOnce(&Path)) -> PathBuf {
        let tree = self.dir.path().join(format!("{name}.tree"));
        fs::create_dir(&tree).expect("a fresh name");
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).expect("it is ours");
        fill(&tree);
        let image = self.dir.path().join(format!("{name}.erofs"));
        let made = Command::new("mkfs.erofs")
            .args(["--quiet", "--all-root"])
            .args(options)
            .arg(&image)
            .arg(&tree)
            .output();
        let made = made.expect("erofs-utils is installed");
        assert!(made.status.success(), "mkfs.erofs: {}", String::from_utf8_lossy(&made.stderr));
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).expect("it is ours");
        image
    }
}

/// Puts busybox and its applets into a directory, and what a root file system has besides.
///
/// # Panics
/// When Debian's busybox-static is missing.
pub fn fill_with_busybox(root: &Path) {
    let bin = root.join("bin");
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir(root.join(dir)).expect("a fresh directory");
    }
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    let applets = String::from_utf8(list).expect("names");
    // The list has busybox itself, and a link to itself would replace the program.
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", bin.join(applet)).expect("a fresh name");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("a fresh file");
    fs::write(root.join("etc/not-executable"), "data\n").expect("a fresh file");
}

/// Splits the one blob of an image in two, which mkfs.erofs of Debian 12 cannot: each chunk index that leads behind
/// the middle leads to the second device then, and a new device table names both
/// (Linux, `fs/erofs/erofs_fs.h`: `erofs_super_block`, `erofs_inode_chunk_index`, `erofs_deviceslot`).
fn split(mut metadata: Vec<u8>, blob: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    const BLOCK: usize = 4096;
    const SUPERBLOCK: usize = 1024;
    const SLOT: usize = 128;
    let number =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let small = |number: usize| u32::try_from(number).expect("a small image").to_le_bytes();
    let (blocks, middle) = (blob.len() / BLOCK, blob.len() / BLOCK / 2);
    // Two bytes of advice, two with the device, four with the block.
    let first_device = 1_u32 << 16;
    for at in (SUPERBLOCK + 256..metadata.len()).step_by(8) {
        let block = number(&metadata, at + 4) as usize;
        if number(&metadata, at) == first_device && (middle..blocks).contains(&block) {
            metadata[at..at + 4].copy_from_slice(&(2_u32 << 16).to_le_bytes());
            metadata[at + 4..at + 8].copy_from_slice(&small(block - middle));
        }
    }
    let mut table = vec![0; BLOCK];
    table[64..68].copy_from_slice(&small(middle));
    table[SLOT + 64..SLOT + 68].copy_from_slice(&small(blocks - middle));
    // Without its checksum, which is of what was there before.
    metadata[SUPERBLOCK + 8] &= !1;
    let devices = u16::try_from(metadata.len() / SLOT).expect("a small image").to_le_bytes();
    metadata[SUPERBLOCK + 86..SUPERBLOCK + 88].copy_from_slice(&2_u16.to_le_bytes());
    metadata[SUPERBLOCK + 88..SUPERBLOCK + 90].copy_from_slice(&devices);
    let size = number(&metadata, SUPERBLOCK + 36) as usize + 1;
    metadata[SUPERBLOCK + 36..SUPERBLOCK + 40].copy_from_slice(&small(size));
    metadata.extend(table);
    let (first, second) = blob.split_at(middle * BLOCK);
    (metadata, first.to_vec(), second.to_vec())
}
