//! Finds what a run left behind: processes, mounts, loop devices.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// From now on a process whose parent ends becomes a child of ours, however far below us it was started.
pub(super) fn adopt_orphans() -> Result<()> {
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me)).context("cannot become the parent of orphans")
}

/// What is left, in words; of mounts and loop devices, those that involve `directory`.
pub(super) fn find(directory: &Path) -> Result<Vec<String>> {
    let mut left = processes()?;
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    left.extend(mounts(&table, directory));
    left.extend(loop_devices(Path::new("/sys/block"), directory)?);
    Ok(left)
}

/// The processes that are our children by now: those that we started have been waited for.
fn processes() -> Result<Vec<String>> {
    let me = std::process::id();
    let children =
        fs::read_to_string(format!("/proc/self/task/{me}/children")).context("cannot list our children")?;
    Ok(children.split_whitespace().filter_map(alive).collect())
}

/// The process in words, unless it has ended; an orphan that has ended stays our child until we end, too.
fn alive(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let has_ended = value("State:").is_some_and(|state| state.starts_with('Z'));
    (!has_ended).then(|| format!("process {pid} ({})", value("Name:").unwrap_or_default()))
}

fn mounts(table: &str, directory: &Path) -> Vec<String> {
    let directory = directory.display().to_string();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(&directory)).map(|point| format!("mount {point}")).collect()
}

fn loop_devices(block: &Path, directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(block).with_context(|| format!("cannot list {}", block.display()))? {
        let device = entry?;
        // Only loop devices that are in use have this file.
        let Ok(file) = fs::read_to_string(device.path().join("loop/backing_file")) else { continue };
        if Path::new(file.trim_end_matches('\n')).starts_with(directory) {
            found.push(format!("loop device {}", device.file_name().display()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use rustix::process::WaitIdOptions;

    use super::*;

    #[test]
    fn mounts_below_the_directory_are_found() {
        let table =
            "83 50 7:0 / /t/demo/1/fs ro - erofs /dev/loop0 ro\n84 50 0:9 / /t/other rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts(table, Path::new("/t/demo")), ["mount /t/demo/1/fs"]);
    }

    #[test]
    fn loop_devices_on_files_below_the_directory_are_found() {
        let block = tempfile::tempdir().unwrap();
        for (device, file) in [("loop0", "/t/demo/1/layer.erofs\n"), ("loop1", "/t/other\n")] {
            fs::create_dir_all(block.path().join(device).join("loop")).unwrap();
            fs::write(block.path().join(device).join("loop/backing_file"), file).unwrap();
        }
        fs::create_dir(block.path().join("vda")).unwrap();
        assert_eq!(loop_devices(block.path(), Path::new("/t/demo")).unwrap(), ["loop device loop0"]);
    }

    #[test]
    fn a_process_is_left_until_it_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = child.id().to_string();
        // Once it has written, it is cat; right after the start it is still a copy of this test.
        child.stdin.as_ref().unwrap().write_all(b"a").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(alive(&pid), Some(format!("process {pid} (cat)")));
        drop(child.stdin.take());
        // The end of its output is not yet its end, but waiting for that would also remove it.
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(
            rustix::process::WaitId::Pid(id),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(alive(&pid), None);
        child.wait().unwrap();
        assert_eq!(alive(&pid), None);
    }
}
