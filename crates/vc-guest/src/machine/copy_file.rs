//! CopyFile: a file, directory or link that the host puts into the guest, piece by piece.
//!
//! Containers may write below the same directory, so the way there is opened step by step, and no link on it
//! is followed.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat};
use nix::sys::uio::pwrite;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use vc_agent_protocol::agent::CopyFileRequest;
use vc_types::{GuestPath, InvalidPath};

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyFileError {
    /// The path is not usable.
    #[error("cannot copy to {0:?}")]
    Path(String, #[source] InvalidPath),
    /// The path is where the host has nothing to put.
    #[error("cannot copy to {0}: the host may put files only below /run, and not below /run/vc")]
    Outside(GuestPath),
    /// Something that is neither file, directory nor link.
    #[error("cannot copy to {path}: mode {mode:#o} is neither a file, a directory nor a link")]
    Kind {
        /// Where to.
        path: GuestPath,
        /// The mode that the host sent.
        mode: u32,
    },
    /// A piece that is not within the file.
    #[error("cannot copy to {0}: the piece is not within the size of the file")]
    Range(GuestPath),
    /// The kernel refuses a step; `ELOOP` is a link on the way.
    #[error("cannot {step} for the copy to {path}")]
    Step {
        /// What failed.
        step: &'static str,
        /// Where to.
        path: GuestPath,
        /// Why.
        #[source]
        errno: Errno,
    },
}

/// The permissions of directories on the way when the host sends none.
const DIRECTORY_MODE: u32 = 0o750;

/// What a file is called until its last piece has come.
const PART: &str = ".vc-part";

/// Copies what the request has. `root` stands for `/` in tests.
///
/// A file is there under its name once its last byte is, and replaces what was there before.
///
/// # Errors
/// [`CopyFileError`] names the step.
pub fn copy_file(root: &Path, request: &CopyFileRequest) -> Result<(), CopyFileError> {
    let path = GuestPath::new(&request.path)
        .map_err(|error| CopyFileError::Path(request.path.chars().take(200).collect(), error))?;
    let below = below_run(&path).ok_or_else(|| CopyFileError::Outside(path.clone()))?;
    let copy = Copy { request, path: &path };
    let directory_mode = if request.dir_mode == 0 { DIRECTORY_MODE } else { request.dir_mode };
    let run = open(&root.join("run"), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut parent = copy.step("open /run", run)?;
    let (name, parents) = below.split_last().expect("checked not to be /run itself");
    for component in parents {
        parent = copy.directory(&parent, component, directory_mode, false)?;
    }
    match SFlag::from_bits_truncate(request.file_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => copy.file(&parent, name),
        SFlag::S_IFDIR => copy.directory(&parent, name, request.file_mode, true).map(drop),
        SFlag::S_IFLNK => copy.link(&parent, name),
        _ => Err(CopyFileError::Kind { path: path.clone(), mode: request.file_mode }),
    }
}

/// The components below `/run`, at least one; `None` for paths elsewhere, and in the agent's own directory.
fn below_run(path: &GuestPath) -> Option<Vec<OsString>> {
    let below = Path::new(path.as_str()).strip_prefix("/run").ok()?;
    let names = below.components().map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    });
    let names = names.collect::<Option<Vec<_>>>()?;
    names.first().filter(|first| *first != "vc")?;
    Some(names)
}

struct Copy<'a> {
    request: &'a CopyFileRequest,
    path: &'a GuestPath,
}

impl Copy<'_> {
    fn file(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), CopyFileError> {
        let data = &self.request.data;
        let number = |value: i64| u64::try_from(value).map_err(|_| CopyFileError::Range(self.path.clone()));
        let (offset, size) = (number(self.request.offset)?, number(self.request.file_size)?);
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= size);
        let end = end.ok_or_else(|| CopyFileError::Range(self.path.clone()))?;

        let part = with_suffix(name);
        let truncate = if offset == 0 { OFlag::O_TRUNC } else { OFlag::empty() };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | truncate;
        let file = self.step("make the file", below(parent, &part, flags, Mode::S_IRUSR | Mode::S_IWUSR))?;
        self.write(&file, data, self.request.offset)?;
        if end < size {
            return Ok(());
        }
        self.step("set the owner", fchown(&file, self.uid(), self.gid()))?;
        self.step("set the permissions", fchmod(&file, mode(self.request.file_mode)))?;
        self.step("put the file in its place", renameat(parent, part.as_path(), parent, name))
    }

    fn write(&self, file: &OwnedFd, mut data: &[u8], mut offset: i64) -> Result<(), CopyFileError> {
        while !data.is_empty() {
            let written = self.step("write the file", pwrite(file, data, offset))?;
            data = &data[written..];
            offset += i64::try_from(written).expect("at most the data's length");
        }
        Ok(())
    }

    /// Opens a directory, and makes it when it is not there. `is_target` when it is what the host sends:
    /// then it gets mode and owner even if it was there.
    fn directory(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        permissions: u32,
        is_target: bool,
    ) -> Result<OwnedFd, CopyFileError> {
        let is_new = match mkdirat(parent, name, Mode::S_IRWXU) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return self.step("make the directory", Err(errno)),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory =
            self.step("open the directory", below(parent, Path::new(name), flags, Mode::empty()))?;
        if is_target {
            self.step("set the owner", fchown(&directory, self.uid(), self.gid()))?;
        }
        if is_new || is_target {
            self.step("set the permissions", fchmod(&directory, mode(permissions)))?;
        }
        Ok(directory)
    }

    /// The data is where the link leads to.
    fn link(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), CopyFileError> {
        let part = with_suffix(name);
        match unlinkat(parent, part.as_path(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return self.step("remove an old part", Err(errno)),
        }
        let target = OsStr::from_bytes(&self.request.data);
        self.step("make the link", symlinkat(target, parent, part.as_path()))?;
        let owned = fchownat(parent, part.as_path(), self.uid(), self.gid(), AtFlags::AT_SYMLINK_NOFOLLOW);
        self.step("set the owner", owned)?;
        self.step("put the link in its place", renameat(parent, part.as_path(), parent, name))
    }

    /// Negative means: leave it.
    fn uid(&self) -> Option<Uid> {
        u32::try_from(self.request.uid).ok().map(Uid::from_raw)
    }

    fn gid(&self) -> Option<Gid> {
        u32::try_from(self.request.gid).ok().map(Gid::from_raw)
    }

    fn step<T>(&self, step: &'static str, result: Result<T, Errno>) -> Result<T, CopyFileError> {
        result.map_err(|errno| CopyFileError::Step { step, path: self.path.clone(), errno })
    }
}

/// Opens an entry of `parent` itself, whatever else bears its name later (openat2(2)).
fn below(parent: &OwnedFd, name: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    openat2(parent, name, how)
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits & 0o7777)
}

fn with_suffix(name: &OsStr) -> PathBuf {
    let mut bytes = b".".to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(PART.as_bytes());
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, read, read_dir, read_link, write};
    use std::os::unix::fs::{MetadataExt, symlink};

    const FILE: u32 = libc::S_IFREG;
    const DIRECTORY: u32 = libc::S_IFDIR;
    const LINK: u32 = libc::S_IFLNK;

    fn guest() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        create_dir(root.path().join("run")).unwrap();
        root
    }

    fn request(path: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
        CopyFileRequest {
            path: path.into(),
            file_size: i64::try_from(data.len()).unwrap(),
            file_mode: mode,
            dir_mode: 0o711,
            uid: -1,
            gid: -1,
            data: data.to_vec(),
            ..Default::default()
        }
    }

    fn permissions(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_comes_in_pieces_and_is_there_with_the_last() {
        let root = guest();
        let place = root.path().join("run/a/b/file");
        let mut piece = request("/run/a//b/file", FILE | 0o640, b"hello ");
        piece.file_size = 11;
        copy_file(root.path(), &piece).unwrap();
        assert!(!place.exists());
        (piece.offset, piece.data) = (6, b"world".to_vec());
        copy_file(root.path(), &piece).unwrap();
        assert_eq!(read(&place).unwrap(), b"hello world");
        assert_eq!((permissions(&place), permissions(&root.path().join("run/a/b"))), (0o640, 0o711));
        // A shorter one replaces it, and an empty one too.
        copy_file(root.path(), &request("/run/a/b/file", FILE | 0o600, b"x")).unwrap();
        assert_eq!(read(&place).unwrap(), b"x");
        copy_file(root.path(), &request("/run/a/b/file", FILE | 0o600, b"")).unwrap();
        assert_eq!(read(&place).unwrap(), b"");
        assert_eq!(read_dir(root.path().join("run/a/b")).unwrap().count(), 1, "no part is left");
    }

    #[test]
    fn directories_and_links_are_made_and_renewed() {
        let root = guest();
        for mode in [0o700, 0o2755] {
            copy_file(root.path(), &request("/run/d", DIRECTORY | mode, b"")).unwrap();
            assert_eq!(permissions(&root.path().join("run/d")), mode);
        }
        for target in ["one", "../../two"] {
            copy_file(root.path(), &request("/run/d/link", LINK | 0o777, target.as_bytes())).unwrap();
            assert_eq!(read_link(root.path().join("run/d/link")).unwrap(), Path::new(target));
        }
    }

    #[test]
    fn no_link_is_followed() {
        let root = guest();
        let outside = root.path().join("outside");
        create_dir(&outside).unwrap();
        write(outside.join("file"), "safe").unwrap();
        let run = root.path().join("run");
        symlink(&outside, run.join("out")).unwrap();
        symlink(outside.join("file"), run.join("file")).unwrap();
        let on_the_way = copy_file(root.path(), &request("/run/out/file", FILE | 0o600, b"evil"));
        let is_loop =
            |result| matches!(result, Err(CopyFileError::Step { errno: Errno::ELOOP | Errno::ENOTDIR, .. }));
        assert!(is_loop(on_the_way));
        assert!(is_loop(copy_file(root.path(), &request("/run/out", DIRECTORY | 0o777, b""))));
        // The link itself is replaced.
        copy_file(root.path(), &request("/run/file", FILE | 0o600, b"new")).unwrap();
        assert_eq!(read(outside.join("file")).unwrap(), b"safe");
        assert_eq!(read(run.join("file")).unwrap(), b"new");
        // Nor is one in the place of a part.
        symlink(outside.join("file"), run.join(".other.vc-part")).unwrap();
        assert!(is_loop(copy_file(root.path(), &request("/run/other", FILE | 0o600, b"evil"))));
        assert_eq!(read(outside.join("file")).unwrap(), b"safe");
    }

    #[test]
    fn only_the_hosts_own_places_are_written_to() {
        let root = guest();
        for bad in ["/etc/passwd", "/run", "/run/vc", "/run/vc/bundles/x/config.json", "/runner/x"] {
            let result = copy_file(root.path(), &request(bad, FILE, b""));
            assert!(matches!(result, Err(CopyFileError::Outside(_))), "{bad:?}");
        }
        for bad in ["", "run/x", "/run/../etc/x", "/run/a\0b"] {
            let result = copy_file(root.path(), &request(bad, FILE, b""));
            assert!(matches!(result, Err(CopyFileError::Path(..))), "{bad:?}");
        }
        assert_eq!(read_dir(root.path().join("run")).unwrap().count(), 0);
    }

    #[test]
    fn pieces_beyond_the_size_and_other_kinds_are_refused() {
        let root = guest();
        for (offset, size) in [(-1, 4), (1, 4), (i64::MAX, 4), (0, 3), (0, -1)] {
            let piece = CopyFileRequest { offset, file_size: size, ..request("/run/x", FILE, b"data") };
            assert!(
                matches!(copy_file(root.path(), &piece), Err(CopyFileError::Range(_))),
                "{offset} {size}"
            );
        }
        let pipe = copy_file(root.path(), &request("/run/x", libc::S_IFIFO | 0o600, b""));
        assert!(matches!(pipe, Err(CopyFileError::Kind { .. })));
    }
}
