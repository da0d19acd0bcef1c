//! What is known about the sources of mounts.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use vc_device::{FileId, PFN_SIGNATURE_OFFSET, PathKind, PmemBacking, has_pfn_signature};
use vc_mountinfo::LoopFile;
use vc_types::{DeviceNumber, HostPath};

use super::gather::{FactsError, Host, kind_of};
use crate::volume::kubernetes::{MOST_FILES, is_replaced};
use crate::volume::{ContainerMount, MountFacts, is_bind};

/// The major of loop devices (`LOOP_MAJOR`).
const LOOP_MAJOR: u32 = 7;

impl Host<'_> {
    pub(super) fn mount(&mut self, wanted: &ContainerMount) -> Result<MountFacts, FactsError> {
        let mount = &wanted.mount;
        let is_image = mount.options.iter().any(|option| option.starts_with("io.katacontainers.fs-opt."));
        // A path that is not absolute is no path of the host; the planner tells what it is.
        let (Ok(source), true) = (HostPath::new(&mount.source), is_bind(mount) || is_image) else {
            return Ok(MountFacts::default());
        };
        let mut facts = MountFacts::default();
        if let Some(store) = self.around.direct_volumes
            && let Some(volume) = store
                .find(&source)
                .map_err(|error| FactsError::Direct { path: source.as_path().into(), source: error })?
        {
            facts.disk = self.disk(&volume.device)?;
            let kind = facts.disk.kind.clone().unwrap_or(PathKind::Other);
            facts.direct = Some((volume, kind));
        }
        let Some((kind, stat)) = kind_of(&source)? else { return Ok(facts) };
        let resolved = resolve(&source)?;
        facts.gid = stat.gid();
        facts.kind = Some(kind.clone());
        if is_of_the_kernel(&resolved) || facts.direct.is_some() {
            facts.resolved = Some(resolved);
            return Ok(facts);
        }
        match &kind {
            PathKind::Block(_) => facts.disk = self.disk(&resolved)?,
            PathKind::Regular(_) if is_image => facts.disk = self.disk(&resolved)?,
            PathKind::Directory => self.directory_of_mount(&resolved, &stat, &mut facts)?,
            _ => {}
        }
        if is_replaced(&source) {
            facts.files = count_files(resolved.as_ref(), 0);
        }
        facts.resolved = Some(resolved);
        Ok(facts)
    }

    fn directory_of_mount(
        &mut self,
        source: &HostPath,
        stat: &Metadata,
        facts: &mut MountFacts,
    ) -> Result<(), FactsError> {
        let failed = |source: &HostPath, error| FactsError::Mount {
            path: source.as_path().into(),
            source: Box::new(error),
        };
        let mount = self.lookup.covering(source).map_err(|error| failed(source, error))?;
        let (fs_type, read_only) = (mount.fs_type.to_string_lossy().into_owned(), mount.read_only);
        let is_mounted_here = mount.mount_point.as_deref() == Some(source.as_path());
        if fs_type == "hugetlbfs" {
            let filesystem = rustix::fs::statfs(source.as_path())
                .map_err(|error| FactsError::Look { path: source.as_path().into(), source: error.into() })?;
            // The block size of a hugetlbfs is the size of its pages.
            facts.huge_page = u64::try_from(filesystem.f_bsize).ok();
        }
        // What the host may write to meanwhile is no memory of a guest's.
        if read_only && DeviceNumber::from_stat(stat.dev()).is_ok_and(|number| number.major() == LOOP_MAJOR) {
            facts.pmem = pmem(stat, &fs_type);
        }
        facts.fs_type = is_mounted_here.then_some(fs_type);
        Ok(())
    }
}

/// A path without links.
pub(super) fn resolve(source: &HostPath) -> Result<HostPath, FactsError> {
    let resolved = fs::canonicalize(source)
        .map_err(|error| FactsError::Look { path: source.as_path().into(), source: error })?;
    HostPath::new(&resolved).map_err(|source| FactsError::Path { path: resolved, source })
}

fn is_of_the_kernel(path: &HostPath) -> bool {
    ["/proc", "/sys"].iter().any(|directory| path.as_path().starts_with(directory))
}

/// The image behind a directory on a loop device. One that is only in part behind it, or that cannot be told,
/// is none: the directory is then shared as any other.
fn pmem(stat: &Metadata, fs_type: &str) -> Option<PmemBacking> {
    let backing = LoopFile::behind(vc_mountinfo::DeviceNumber::from_raw(stat.dev())).ok()?;
    let path = backing.whole_file().ok()?;
    let mut start = vec![0; PFN_SIGNATURE_OFFSET + 64];
    let read = File::open(path).and_then(|file| file.read_at(&mut start, 0)).ok()?;
    let device = DeviceNumber::new(backing.id.device.major(), backing.id.device.minor()).ok()?;
    Some(PmemBacking {
        file: FileId { device, inode: backing.id.inode },
        path: HostPath::new(path).ok()?,
        has_signature: has_pfn_signature(&start[..read]),
        fs_type: Some(fs_type.to_owned()),
    })
}

/// How many files are below a path, itself included; it is not counted further than matters.
fn count_files(path: &Path, so_far: usize) -> usize {
    let Ok(stat) = fs::symlink_metadata(path) else { return so_far };
    if !stat.is_dir() {
        return so_far + 1;
    }
    let mut count = so_far;
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if count > MOST_FILES {
            break;
        }
        count = count_files(&entry.path(), count);
    }
    count
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::facts::Surroundings;
    use crate::mount::Mount;

    /// What is known about the source of a bind mount.
    fn facts(source: &Path) -> MountFacts {
        let source = source.to_str().unwrap().to_owned();
        let mount = Mount { kind: "bind".into(), source, options: vec!["rbind".into()] };
        let wanted = ContainerMount { destination: "/volume".into(), mount };
        Host::new(Surroundings::default()).mount(&wanted).unwrap()
    }

    #[test]
    fn a_file_system_is_that_of_a_directory_only_where_it_is_mounted() {
        if !vc_tests::root() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let mounted = base.path().join("mounted");
        fs::create_dir(&mounted).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            assert!(
                Command::new(program).args(arguments).arg(&mounted).status().unwrap().success(),
                "{program}"
            );
        };
        run("mount", &["-t", "tmpfs", "tmpfs"]);
        let within = mounted.join("within");
        fs::create_dir(&within).unwrap();
        let link = base.path().join("link");
        std::os::unix::fs::symlink(&mounted, &link).unwrap();
        let types = [&mounted, &within, &link].map(|path| facts(path).fs_type);
        run("umount", &[]);
        assert_eq!(types, [Some("tmpfs".to_owned()), None, Some("tmpfs".to_owned())]);
    }
}
