//! EROFS images made with mkfs.erofs, and loop devices that detach themselves.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};

use crate::kernel;
use crate::world::{World, skip};

/// Makes the image `name` with one file in it; without mkfs.erofs it says so.
pub(crate) fn make(world: &World, name: impl AsRef<Path>) -> Option<PathBuf> {
    make_with(world, name, &[])
}

/// The same with options for mkfs.erofs.
pub(crate) fn make_with(world: &World, name: impl AsRef<Path>, options: &[&str]) -> Option<PathBuf> {
    let image = world.path(name.as_ref());
    let tree = world.dir("tree");
    fs::create_dir_all(image.parent().unwrap()).unwrap();
    fs::write(tree.join("name"), name.as_ref().as_os_str().as_encoded_bytes()).unwrap();
    let made = Command::new("mkfs.erofs").args(options).arg(&image).arg(&tree).output();
    match made {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            skip("needs mkfs.erofs, of the package erofs-utils");
            return None;
        }
        Err(e) => panic!("mkfs.erofs: {e}"),
    }
    Some(image)
}

/// Mounts an image without a block device.
pub(crate) fn mount_file(image: &Path, at: &Path, options: Option<&str>) -> nix::Result<()> {
    fs::create_dir_all(at).unwrap();
    mount(Some(image), at, Some("erofs"), MsFlags::MS_RDONLY, options)
}

/// A loop device of this test. It detaches itself when the handle is closed and nothing of it is mounted, even
/// if the test is killed.
pub(crate) struct Loop {
    pub(crate) number: u32,
    pub(crate) handle: File,
}

impl Loop {
    pub(crate) fn attach(file: &Path) -> Self {
        Self::attach_part(file, 0, 0)
    }

    pub(crate) fn attach_part(file: &Path, offset: u64, size_limit: u64) -> Self {
        let control = File::open("/dev/loop-control").unwrap();
        let file = File::open(file).unwrap();
        // Others take loop devices too: the free one may be taken before it is ours.
        for _ in 0..1000 {
            let number = kernel::free_loop(&control).unwrap();
            let handle = match File::open(format!("/dev/loop{number}")) {
                Ok(handle) => handle,
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => continue,
                Err(e) => panic!("/dev/loop{number}: {e}"),
            };
            match kernel::attach_loop(&handle, &file, offset, size_limit, true) {
                Ok(()) => return Self { number, handle },
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => panic!("LOOP_CONFIGURE of /dev/loop{number}: {e}"),
            }
        }
        panic!("no loop device was to be had");
    }

    pub(crate) fn mount(&self, at: &Path) {
        fs::create_dir_all(at).unwrap();
        let device = format!("/dev/loop{}", self.number);
        mount(Some(&*device), at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
    }
}
