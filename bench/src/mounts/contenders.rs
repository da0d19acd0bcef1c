//! vc-mountinfo and its peers, each as it is meant to be used for the same question.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vc_mountinfo::{CachedLookup, Fields, Lookup, MountInfoReader, Mounts, Way};

use super::bare;
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
        ("virtcontainers' search", virtcontainers),
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

/// The most that 30 look-ups may have on the heap at a time.
const HEAP: i64 = 8 << 10;

/// Those who resolve the layers.
pub fn of_layers(world: &World, mounts: usize) -> Result<Vec<Contender<'_>>> {
    let (paths, sources): (Vec<_>, Vec<_>) = world.layers().iter().cloned().unzip();
    let want: Vec<_> = sources.into_iter().map(|source| Some(source.into_os_string())).collect();
    let large = mounts >= 10_000;
    let reach = |ratio| large.then_some(ratio);
    let right = |want: &Vec<Option<OsString>>| {
        let want = want.clone();
        move |found| found == want
    };
    let mut all = vec![floor()];
    for (name, find) in finders() {
        let paths = paths.clone();
        let contender = Contender::new(name, move || find(&paths), right(&want));
        all.push(match name {
            "vc-mountinfo" => contender.reaching(reach(0.0010)).within_heap(HEAP),
            _ => contender,
        });
    }
    let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect();
    let parent = paths[0].parent().unwrap_or(Path::new("/")).to_path_buf();
    let from_directory = Contender::new(
        "vc-mountinfo, from an open directory",
        move || {
            let directory = File::open(&parent)?;
            let mut lookup = Lookup::new();
            let found =
                names.iter().map(|name| Ok(Some(lookup.at_dir(&directory, name)?.source.into_owned())));
            found.collect::<Result<Vec<_>>>()
        },
        right(&want),
    );
    let mut cache = CachedLookup::new();
    let (cached_paths, cached_want) = (paths.clone(), want.clone());
    let cached = Contender::new(
        "vc-mountinfo, cached",
        move || {
            // Looks at each answer, and keeps none of it.
            let mut length = 0;
            for path in &cached_paths {
                length += cache.at(path)?.source.len();
            }
            Ok(length)
        },
        move |length| length == cached_want.iter().flatten().map(|source| source.len()).sum::<usize>(),
    );
    let raw = |paths: &[PathBuf]| {
        paths.iter().map(|path| CString::new(path.as_os_str().as_bytes())).collect::<Result<Vec<_>, _>>()
    };
    let (both, one) = (raw(&paths)?, raw(&paths)?);
    all.splice(
        1..1,
        [
            Contender::new("bare statx and statmount", move || bare::resolve(&both), |done| done),
            Contender::new("bare statx", move || bare::identify(&one), |done| done),
        ],
    );
    all.insert(4, from_directory.reaching(reach(0.0010)).within_heap(HEAP));
    all.insert(5, cached.reaching(reach(0.0004)).within_heap(HEAP));
    Ok(all)
}

/// Those who read the whole table.
pub fn of_table(mounts: usize) -> Vec<Contender<'static>> {
    let large = mounts >= 10_000;
    let reach = |ratio| large.then_some(ratio);
    let counted =
        |name, count: fn() -> Result<usize>| Contender::new(name, count, move |count| count == mounts);
    let mut all = vec![
        floor(),
        counted("vc-mountinfo, without options", || {
            count(Mounts::all(Fields { mount_point: true, ..Fields::default() })?)
        })
        .reaching(reach(0.40)),
        counted("vc-mountinfo, all fields", || count(Mounts::all(Fields::ALL)?)).reaching(reach(1.01)),
        counted("vc-mountinfo, entries left escaped", entries).reaching(reach(1.01)),
        counted("procfs 0.18", || Ok(procfs::process::Process::myself()?.mountinfo()?.0.len())),
        counted("mountinfo 0.2", || Ok(::mountinfo::MountInfo::new()?.mounting_points.len())),
        counted("mnt 0.3", || Ok(mnt_all()?.len())),
        counted("proc-mounts 0.3", || Ok(proc_mounts_all()?.0.len())),
        counted("libmount 0.1 (Rust)", || {
            let text = fs::read("/proc/self/mountinfo")?;
            Ok(::libmount::mountinfo::Parser::new(&text).collect::<Result<Vec<_>, _>>()?.len())
        }),
    ];
    if LibMount::load().is_some() {
        all.push(counted(C_LIBMOUNT, || LibMount::load().context("libmount.so.1 is gone")?.count()));
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
    Contender::new("reading mountinfo (the floor)", move || read_table(&mut buffer), |()| true)
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

fn count(mut mounts: Mounts) -> Result<usize> {
    let mut count = 0;
    while mounts.next_mount()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// For each path: all of /proc/mounts, the first line of six fields whose second is the path, byte by byte.
fn virtcontainers(paths: &[PathBuf]) -> Result<Vec<Option<OsString>>> {
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
