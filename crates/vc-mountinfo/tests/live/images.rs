//! EROFS images made with mkfs.erofs, and loop devices that detach themselves.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use vc_mountinfo::DeviceNumber;

use crate::kernel;
use crate::world::{World, skip};

/// Makes the image `name` with one file in it; without mkfs.erofs the test ends.
pub(crate) fn make(world: &World, name: impl AsRef<Path>) -> PathBuf {
    make_with(world, name, &[])
}

/// The same with options for mkfs.erofs.
pub(crate) fn make_with(world: &World, name: impl AsRef<Path>, options: &[&str]) -> PathBuf {
    let image = world.path(name.as_ref());
    let tree = world.dir("tree");
    fs::create_dir_all(image.parent().unwrap()).unwrap();
    fs::write(tree.join("name"), name.as_ref().as_os_str().as_encoded_bytes()).unwrap();
    let made = Command::new("mkfs.erofs").args(options).arg(&image).arg(&tree).output();
    match made {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => skip("needs mkfs.erofs, of the package erofs-utils"),
        Err(e) => panic!("mkfs.erofs: {e}"),
    }
    image
}

/// Mounts an image without a block device.
pub(crate) fn mount_file(image: &Path, at: &Path, options: Option<&str>) {
    fs::create_dir_all(at).unwrap();
    match mount(Some(image), at, Some("erofs"), MsFlags::MS_RDONLY, options) {
        Ok(()) => {}
        Err(nix::Error::ENOTBLK) => skip("needs EROFS mounts without a block device, of Linux 6.12"),
        Err(nix::Error::ENODEV) => skip("needs EROFS in the kernel"),
        Err(e) => panic!("cannot mount {image:?}: {e}"),
    }
}

/// A loop device of this test. It detaches itself when the handle is closed and nothing of it is mounted, even
/// if the test is killed.
pub(crate) struct Loop {
    pub(crate) number: u32,
    pub(crate) handle: File,
}

impl Loop {
    /// Attaches all of a file for reading.
    pub(crate) fn attach(file: &Path) -> Self {
        Self::attach_part(file, 0, 0)
    }

    /// Attaches a part of a file for reading.
    pub(crate) fn attach_part(file: &Path, offset: u64, size_limit: u64) -> Self {
        let file = File::open(file).unwrap();
        Self::take(|device| kernel::attach_loop(device, &file, offset, size_limit, kernel::LOOP_READ_ONLY))
    }

    /// Attaches all of a file for reading and writing, as a disk that can have partitions.
    pub(crate) fn attach_writable(file: &Path) -> Self {
        let file = File::options().read(true).write(true).open(file).unwrap();
        Self::take(|device| kernel::attach_loop(device, &file, 0, 0, kernel::LOOP_PARTITIONS))
    }

    fn take(attach: impl Fn(&File) -> io::Result<()>) -> Self {
        let control = match File::open("/dev/loop-control") {
            Ok(control) => control,
            Err(e) if e.kind() == io::ErrorKind::NotFound => skip("needs loop devices"),
            Err(e) => panic!("/dev/loop-control: {e}"),
        };
        // Others take loop devices too: the free one may be taken before it is ours.
        for _ in 0..1000 {
            let number = kernel::free_loop(&control).unwrap();
            let handle = match File::options().read(true).write(true).open(format!("/dev/loop{number}")) {
                Ok(handle) => handle,
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => continue,
                Err(e) => panic!("/dev/loop{number}: {e}"),
            };
            match attach(&handle) {
                Ok(()) => return Self { number, handle },
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => panic!("LOOP_CONFIGURE of /dev/loop{number}: {e}"),
            }
        }
        panic!("no loop device was to be had");
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/dev/loop{}", self.number).into()
    }

    pub(crate) fn device(&self) -> DeviceNumber {
        DeviceNumber::from_raw(self.handle.metadata().unwrap().rdev())
    }

    pub(crate) fn mount(&self, at: &Path) {
        fs::create_dir_all(at).unwrap();
        mount_device(&self.path(), at);
    }
}

/// Mounts the image on a block device.
pub(crate) fn mount_device(device: &Path, at: &Path) {
    mount(Some(device), at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
}
