//! Fixture trees: text files that are unpacked into a directory. `fixtures/README.md` has their form.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use vc_device::Sysfs;

use crate::directory::Directory;

/// A `/sys` made from a fixture; gone when dropped.
pub(crate) struct Tree {
    directory: Directory,
}

impl Tree {
    /// Unpacks the fixture of this name.
    ///
    /// # Panics
    /// When a line is not of the form that the README has.
    pub(crate) fn unpack(name: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let tree = Self { directory: Directory::new() };
        for line in fs::read_to_string(file).unwrap().lines() {
            if !line.is_empty() && !line.starts_with('#') {
                tree.make(line);
            }
        }
        tree
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::new(self.directory.path().join("sys"))
    }

    /// Replaces or adds what `line` says.
    pub(crate) fn make(&self, line: &str) {
        if let Some((path, target)) = line.split_once(" -> ") {
            let path = self.parent(path);
            drop(fs::remove_file(&path));
            symlink(target, path).unwrap();
        } else if let Some((path, text)) = line.split_once(" = ") {
            fs::write(self.parent(path), unescape(text)).unwrap();
        } else if let Some((path, content)) = line.split_once(" : ") {
            let (size, start) = content.split_once(' ').unwrap_or((content, ""));
            let mut bytes: Vec<u8> =
                (0..start.len() / 2).map(|n| u8::from_str_radix(&start[2 * n..][..2], 16).unwrap()).collect();
            bytes.resize(size.parse().unwrap(), 0);
            fs::write(self.parent(path), bytes).unwrap();
        } else {
            panic!("no line of a fixture: {line:?}");
        }
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.strip_prefix('/').unwrap())
    }

    fn parent(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
}
