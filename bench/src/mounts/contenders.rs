//! vc-mountinfo and its peers, each as it is meant to be used for the same question.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vc_mountinfo::{CachedLookup, Fields, Lookup, MountInfoReader, Mounts, ReadError, Way};

use super::c_libmount::LibMount;
use super::measure::Contender;
use super::world::World;

/// The one whose allocations are not Rust's, so not counted.
pub const C_LIBMOUNT: &str = "libmount (C)";

/// Answers the source of the mount at each path.
pub type Find = fn(&[PathBuf]) -> Result<Vec<Option<OsString>>>;

/// Everybody who can answer what is mounted at a path, vc-mountinfo's ways first.
pub fn finders() -> Vec<(&'static str, Find)> {
    let mut finders: Vec<(_, Find)> = vec![
        ("vc-mountinfo", vc),
        ("vc-mountinfo, forced: mount id", vc_mount_id),
        ("vc-mountinfo, forced: parent walk", vc_parent_walk),
        ("seed's algorithm", seed),
        ("procfs 0.18", procfs),
        ("mountinfo 0.2", mountinfo),
        ("mnt 0.3", mnt),
        ("proc-mounts 0.3", proc_mounts),
        ("libmount 0.1 (Rust)", libmount),
    ];
    if LibMount::load().is_some() {
        finders.push((C_LIBMOUNT, c_libmount));
    }
    finders
}

/// Those who resolve the layers.
pub fn of_layers(world: &World, mounts: usize) -> Vec<Contender<'_>> {
    let (paths, sources): (Vec<_>, Vec<_>) = world.layers().iter().cloned().unzip();
    let want: Vec<_> = sources.into_iter().map(|source| Some(source.into_os_string())).collect();
    let large = mounts >= 10_000;
    let reach = |ratio| large.then_some(ratio);
    let mut all = vec![floor()];
    for (name, find) in finders() {
        let (paths, want) = (paths.clone(), want.clone());
        let reach = if name == "vc-mountinfo" { reach(0.0010) } else { None };
        all.push(Contender::new(name, move || Ok(find(&paths)? == want)).reaching(reach));
    }
    let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect();
    let parent = paths[0].parent().unwrap_or(Path::new("/")).to_path_buf();
    {
        let (names, parent, want) = (names.clone(), parent.clone(), want.clone());
        all.insert(
            2,
            Contender::new("vc-mountinfo, from an open directory", move || {
                let directory = File::open(&parent)?;
                let mut lookup = Lookup::new();
                let found =
                    names.iter().map(|name| Ok(Some(lookup.at_dir(&directory, name)?.source.into_owned())));
                Ok(found.collect::<Result<Vec<_>>>()? == want)
            })
            .reaching(reach(0.0010)),
        );
    }
    let mut cache = CachedLookup::new();
    all.insert(
        3,
        Contender::new("vc-mountinfo, cached", move || {
            let mut right = true;
            for (path, want) in paths.iter().zip(&want) {
                right &= Some(&cache.at(path)?.source) == want.as_ref();
            }
            Ok(right)
        })
        .reaching(reach(0.0004)),
    );
    all
}

/// Those who read the whole table.
pub fn of_table(mounts: usize) -> Vec<Contender<'static>> {
    let large = mounts >= 10_000;
    let reach = |ratio| large.then_some(ratio);
    let counted = move |count: usize| Ok(count == mounts);
    let mut all = vec![
        floor(),
        Contender::new("vc-mountinfo, without options", move || {
            counted(count(Mounts::all(Fields { mount_point: true, ..Fields::default() })?)?)
        })
        .reaching(reach(0.40)),
        Contender::new("vc-mountinfo, all fields", move || counted(count(Mounts::all(Fields::ALL)?)?))
            .reaching(reach(1.01)),
        Contender::new("vc-mountinfo, entries left escaped", move || counted(entries()?))
            .reaching(reach(1.01)),
        Contender::new("procfs 0.18", move || {
            counted(procfs::process::Process::myself()?.mountinfo()?.0.len())
        }),
        Contender::new("mountinfo 0.2", move || {
            counted(::mountinfo::MountInfo::new()?.mounting_points.len())
        }),
        Contender::new("mnt 0.3", move || counted(mnt_all()?.len())),
        Contender::new("proc-mounts 0.3", move || counted(proc_mounts_all()?.0.len())),
        Contender::new("libmount 0.1 (Rust)", move || {
            let text = fs::read("/proc/self/mountinfo")?;
            counted(::libmount::mountinfo::Parser::new(&text).collect::<Result<Vec<_>, _>>()?.len())
        }),
    ];
    if let Some(library) = LibMount::load() {
        all.push(Contender::new(C_LIBMOUNT, move || counted(library.count()?)));
    }
    all
}

/// Reads mountinfo with large reads, and does nothing with it.
pub fn read_table(buffer: &mut [u8]) -> Result<()> {
    let mut table = File::open("/proc/self/mountinfo")?;
    while table.read(buffer)? > 0 {}
    Ok(())
}

fn floor() -> Contender<'static> {
    let mut buffer = vec![0; 1 << 16];
    Contender::new("reading mountinfo (the floor)", move || read_table(&mut buffer).map(|()| true))
}

fn vc(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let mut lookup = Lookup::new();
    paths.iter().map(|path| vc_one(&mut lookup, path)).collect()
}

fn vc_one(lookup: &mut Lookup, path: &Path) -> Result<Option<OsString>> {
    match lookup.at(path) {
        Ok(mount) => Ok(Some(mount.source.into_owned())),
        Err(vc_mountinfo::LookupError::NotMountPoint { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn vc_mount_id(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    vc_all(Way::MountId, paths)
}

fn vc_parent_walk(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    vc_all(Way::ParentWalk, paths)
}

fn vc_all(way: Way, paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let found = Lookup::new().forced(way).all(paths).into_iter().map(|found| match found {
        Ok(mount) => Ok(Some(mount.source.into_owned())),
        Err(vc_mountinfo::LookupError::NotMountPoint { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    });
    found.collect()
}

fn entries() -> Result<usize> {
    let mut entries = MountInfoReader::new(File::open("/proc/self/mountinfo")?);
    let mut count = 0;
    while entries.next_entry()?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn count(mut mounts: Mounts) -> Result<usize, ReadError> {
    let mut count = 0;
    while mounts.next_mount()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// For each path: all of /proc/mounts, the first line of six fields whose second is the path, byte by byte.
fn seed(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let find = |path: &PathBuf| {
        let text = fs::read("/proc/mounts")?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.split('\n').map(|line| line.split(' ').collect::<Vec<_>>());
        let mut found = lines.filter(|parts| parts.len() == 6 && Path::new(parts[1]) == *path);
        Ok(found.next().map(|parts| parts[0].into()))
    };
    paths.iter().map(find).collect()
}

/// Finds each path among rows; the last one wins.
fn by_map(paths: &[PathBuf], rows: impl Iterator<Item = (PathBuf, OsString)>) -> Vec<Option<OsString>> {
    let map: HashMap<PathBuf, OsString> = rows.collect();
    paths.iter().map(|path| map.get(path).cloned()).collect()
}

fn procfs(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let rows = procfs::process::Process::myself()?.mountinfo()?.0;
    let rows = rows.into_iter().map(|row| (row.mount_point, row.mount_source.unwrap_or_default().into()));
    Ok(by_map(paths, rows))
}

fn mountinfo(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let rows = ::mountinfo::MountInfo::new()?.mounting_points;
    Ok(by_map(paths, rows.into_iter().map(|row| (row.path, row.what.into()))))
}

fn mnt_all() -> Result<Vec<::mnt::MountEntry>> {
    // Its own function fixes the path /proc/mounts, which is the same file.
    let table = BufReader::new(File::open("/proc/mounts")?);
    ::mnt::MountIter::new(table).collect::<Result<_, _>>().map_err(|error| anyhow::anyhow!("{error:?}"))
}

fn mnt(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    Ok(by_map(paths, mnt_all()?.into_iter().map(|row| (row.file, row.spec.into()))))
}

fn proc_mounts_all() -> Result<::proc_mounts::MountList> {
    // Bytes that are not UTF-8 are an error of its reader, as it means them to be.
    ::proc_mounts::MountList::new().context("proc-mounts")
}

fn proc_mounts(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let rows = proc_mounts_all()?.0;
    Ok(by_map(paths, rows.into_iter().map(|row| (row.dest, row.source.into_os_string()))))
}

fn libmount(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let rows = ::libmount::mountinfo::Parser::new(&text).collect::<Result<Vec<_>, _>>()?;
    let rows =
        rows.iter().map(|row| (PathBuf::from(&*row.mount_point), row.mount_source.clone().into_owned()));
    Ok(by_map(paths, rows))
}

fn c_libmount(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
    LibMount::load().context("libmount.so.1 is gone")?.sources(paths)
}
