//! What a run may have left on the host.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

/// A runtime directory for one run, and a look at all that names it or a directory of its layers.
#[derive(Debug)]
pub struct Leftovers {
    runtime: TempDir,
}

impl Leftovers {
    /// An empty runtime directory; give it to `vc` as `XDG_RUNTIME_DIR`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Self {
        Self { runtime: tempfile::Builder::new().prefix("vc-run-").tempdir().expect("a temporary directory") }
    }

    /// The runtime directory.
    pub fn runtime_dir(&self) -> &Path {
        self.runtime.path()
    }

    /// Everything that is left: files, processes, mounts, loop devices.
    ///
    /// # Panics
    /// When the runtime directory cannot be read.
    pub fn find(&self) -> Vec<String> {
        let dir = self.runtime.path();
        let entries = fs::read_dir(dir).expect("it is ours");
        let mut found: Vec<String> =
            entries.flatten().map(|file| format!("file {}", file.path().display())).collect();
        found.extend(processes_naming(dir).into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let name = dir.to_string_lossy().into_owned();
        found.extend(mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount {line}")));
        found
    }

    /// Asserts that nothing is left. A killed process may take a moment to be gone.
    ///
    /// # Panics
    /// When something is left after ten seconds.
    pub fn assert_none(&self) {
        self.assert_no_process();
        let found = self.find();
        assert!(found.is_empty(), "left behind: {found:#?}");
    }

    /// Asserts that no process is left; files may be, when `vc` itself was killed.
    ///
    /// # Panics
    /// When one is left after ten seconds.
    pub fn assert_no_process(&self) {
        let dir = self.runtime.path();
        for (pid, _) in processes_naming(dir) {
            wait_for_end(pid, Duration::from_secs(10));
        }
        let left = processes_naming(dir);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// The pid of the QEMU of the run.
    pub fn qemu(&self) -> Option<u32> {
        self.process("qemu-system")
    }

    /// The pid of the process of the run whose command line has `part`.
    pub fn process(&self, part: &str) -> Option<u32> {
        let all = processes_naming(self.runtime.path());
        all.into_iter().find(|(_, line)| line.contains(part)).map(|(pid, _)| pid)
    }
}

/// Returns when the process has ended, or the time is over.
fn wait_for_end(pid: u32, time: Duration) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Without a descriptor it has ended already.
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    let time = Timespec::try_from(time).expect("a few seconds");
    let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&time));
}

/// The processes whose command line names `path`, or that work in it.
pub fn processes_naming(path: &Path) -> Vec<(u32, String)> {
    let own = std::process::id();
    let name = path.as_os_str().as_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = pids.filter(|pid| *pid != own).filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let works_there = || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(path));
        let names = line.windows(name.len()).any(|part| part == name) || works_there();
        names.then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    named.collect()
}
