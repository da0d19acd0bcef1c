//! A tmpfs that begins with what is below it: the mount option `tmpcopyup`, which runc and crun know and engines set
//! for `--tmpfs` and `--read-only`.
//!
//! The agent makes and fills such a tmpfs beside the container's bundle, and the container gets a bind mount of it. Where
//! nothing is below, there is nothing to do but to leave the option out.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Mount as OciMount, Spec};
use tokio::task::spawn_blocking;

use crate::error::CallError;
use crate::modules::ModuleLoader;
use crate::mount::Mount;
use crate::mount_options::MountOptions;

const OPTION: &str = "tmpcopyup";

/// Makes what the mounts with the option ask for, and changes them so that the executor needs to know nothing of it. What
/// is mounted below `bundle` goes with it. How long it takes is up to the image and its disk, so it keeps no other call up.
pub(super) async fn fill(
    spec: &mut Spec,
    bundle: &Path,
    modules: &Arc<ModuleLoader>,
) -> Result<(), CallError> {
    if !spec.mounts().iter().flatten().any(is_asked_for) {
        return Ok(());
    }
    let (mut whole, bundle, modules) = (std::mem::take(spec), bundle.to_owned(), Arc::clone(modules));
    let work = move || fill_all(&mut whole, &bundle, &modules).map(|()| whole);
    *spec = spawn_blocking(work).await.unwrap_or(Err(CallError::Panicked))?;
    Ok(())
}

fn is_asked_for(mount: &OciMount) -> bool {
    mount.typ().as_deref() == Some("tmpfs") && mount.options().iter().flatten().any(|option| option == OPTION)
}

fn fill_all(spec: &mut Spec, bundle: &Path, modules: &ModuleLoader) -> Result<(), CallError> {
    let Some(root) = spec.root().as_ref().map(|root| root.path().clone()) else { return Ok(()) };
    for (number, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        if !is_asked_for(mount) {
            continue;
        }
        let options = mount.options().clone().unwrap_or_default();
        let options: Vec<_> = options.into_iter().filter(|option| option != OPTION).collect();
        mount.set_options(Some(options.clone()));
        if let Some(below) = below(&root, mount.destination())? {
            let at = bundle.join(format!("tmpfs-{number}"));
            make(&at, &options, modules)?;
            copy_all(&below, &at, &options).map_err(|error| CallError::File(at.clone(), error))?;
            into_bind(mount, &at, &options);
        }
    }
    Ok(())
}

/// The directory below a mount, if there is one and something in it. Its links lead nowhere out of the root.
fn below(root: &Path, destination: &Path) -> Result<Option<OwnedFd>, CallError> {
    let failed = |errno| CallError::System("look at what is below a tmpfs", errno);
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty()).map_err(failed)?;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let directory = match openat2(&root, destination, how) {
        Ok(directory) => directory,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let empty = fs::read_dir(path_of(&directory)).is_ok_and(|mut entries| entries.next().is_none());
    Ok((!empty).then_some(directory))
}

fn path_of(directory: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

fn make(at: &Path, options: &[String], modules: &ModuleLoader) -> Result<(), CallError> {
    fs::create_dir_all(at).map_err(|error| CallError::File(at.into(), error))?;
    // It is filled first; the bind mount is read-only then.
    let options = options.iter().map(String::as_str).filter(|option| *option != "ro");
    let options = MountOptions::parse(options);
    let mount = Mount { source: "tmpfs", target: at, fs_type: "tmpfs", options };
    mount.make(modules).map_err(|errno| CallError::System("make a tmpfs that is filled", errno))
}

/// The directory itself too, unless the options say what it is to be.
fn copy_all(below: &OwnedFd, at: &Path, options: &[String]) -> io::Result<()> {
    let says = |name: &str| options.iter().any(|option| option.starts_with(name));
    let from = path_of(below);
    let meta = fs::metadata(&from)?;
    if !says("uid=") && !says("gid=") {
        chown(at, Some(meta.uid()), Some(meta.gid()))?;
    }
    if !says("mode=") {
        fs::set_permissions(at, fs::Permissions::from_mode(meta.mode()))?;
    }
    copy_entries(&from, at)
}

fn copy_entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let meta = entry.metadata()?;
        if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &copy)?;
            lchown(&copy, Some(meta.uid()), Some(meta.gid()))?;
        } else if meta.is_dir() {
            fs::create_dir(&copy)?;
            copy_entries(&source, &copy)?;
            own(&copy, &meta)?;
        } else if meta.is_file() {
            fs::copy(&source, &copy)?;
            own(&copy, &meta)?;
        } else {
            tracing::warn!(file = %source.display(), "neither file, directory nor link: not copied into a tmpfs");
        }
    }
    Ok(())
}

/// The owner first: changing it takes away the bits for other users' rights (chown(2)).
fn own(copy: &Path, meta: &Metadata) -> io::Result<()> {
    chown(copy, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(copy, fs::Permissions::from_mode(meta.mode()))
}

/// With the options that are not of the file system.
fn into_bind(mount: &mut OciMount, at: &Path, options: &[String]) {
    let of_mount = |option: &&String| MountOptions::parse([option.as_str()]).data.is_empty();
    let mut kept: Vec<_> = options.iter().filter(of_mount).cloned().collect();
    kept.push("bind".to_owned());
    mount.set_typ(Some("bind".to_owned())).set_source(Some(at.to_owned())).set_options(Some(kept));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mount: &OciMount) -> Vec<&str> {
        mount.options().iter().flatten().map(String::as_str).collect()
    }

    fn spec(root: &Path, destination: &str) -> Spec {
        let mount = serde_json::json!({
            "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m", "tmpcopyup"],
        });
        let spec = serde_json::json!({"ociVersion": "1.2.0", "root": {"path": root}, "mounts": [mount]});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn where_nothing_is_below_only_the_option_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/empty")).unwrap();
        for destination in ["/empty", "/absent"] {
            let mut spec = spec(&dir.path().join("root"), destination);
            fill_all(&mut spec, &dir.path().join("bundle"), &ModuleLoader::open(dir.path())).unwrap();
            let mount = &spec.mounts().as_ref().unwrap()[0];
            assert_eq!((mount.typ().as_deref(), options(mount)), (Some("tmpfs"), vec!["nosuid", "size=1m"]));
        }
        assert!(!dir.path().join("bundle").exists());
    }

    #[test]
    fn a_copy_has_the_same_files_with_the_same_modes() {
        let dir = tempfile::tempdir().unwrap();
        let (root, to) = (dir.path().join("root"), dir.path().join("to"));
        fs::create_dir_all(root.join("etc/below")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(root.join("etc/below/file"), "text").unwrap();
        fs::set_permissions(root.join("etc/below/file"), fs::Permissions::from_mode(0o4710)).unwrap();
        symlink("below/file", root.join("etc/link")).unwrap();
        let below = below(&root, Path::new("/etc")).unwrap().unwrap();
        copy_all(&below, &to, &["mode=0700".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(to.join("below/file")).unwrap(), "text");
        assert_eq!(fs::metadata(to.join("below/file")).unwrap().mode() & 0o7777, 0o4710);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("below/file"));
    }

    #[test]
    fn the_bind_mount_has_the_options_of_mounts() {
        let mut spec = spec(Path::new("/"), "/etc");
        let mount = &mut spec.mounts_mut().as_mut().unwrap()[0];
        into_bind(
            mount,
            Path::new("/at"),
            &["nosuid".into(), "size=1m".into(), "ro".into(), "mode=0700".into()],
        );
        assert_eq!(options(mount), ["nosuid", "ro", "bind"]);
        assert_eq!(mount.source().as_deref(), Some(Path::new("/at")));
    }
}
