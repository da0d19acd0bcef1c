//! One more process in a container: joins what the first process has, and becomes the command.
//!
//! libcontainer can do this too, but it reads back state, specification and mount table, makes two
//! sockets and two processes more, and leaves out the seccomp filter. What remains is here, in the
//! order of libcontainer's first process, from whose parts it is made.

use super::command::{become_program, command};
use super::protocol::{ExecTask, Failure};
use crate::cgroup::ROOT;
use crate::limits::make_room;
use crate::sys::{self, Child};
use libcontainer::syscall::syscall::{Syscall, create_syscall};
use libcontainer::{capabilities, tty};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Uid, chdir, getcwd, setgroups, setresgid, setresuid, setsid};
use oci_spec::runtime::{LinuxNamespaceType, Process};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The most that is read of a container's passwd(5), in bytes.
const MAX_PASSWD: u64 = 1 << 20;

/// Starts the process of `task` in the container of `init`; returns its pid once execve(2) has
/// succeeded. It is a child of this process.
pub(super) fn exec(task: &ExecTask, init: OwnedFd) -> Result<i32, Failure> {
    // The socket's path is the agent's, so it is connected to before the mounts change.
    let console = task.console.as_ref().map(UnixStream::connect).transpose();
    let console =
        console.map_err(|error| Failure::Other(format!("cannot reach the terminal's socket: {error}")))?;
    let cgroup =
        open_cgroup(&task.joining.cgroup, &init).map_err(Failure::step("open the container's cgroup"))?;
    set_oom_score(&task.process)?;
    make_room(task.process.rlimits().as_deref().unwrap_or_default());
    // Processes of the container must not trace this one, nor open its files by way of /proc.
    prctl::set_dumpable(false).map_err(Failure::step("become undumpable"))?;
    setns(init.as_fd(), namespaces(&task.joining.namespaces)).map_err(|errno| match errno {
        Errno::ESRCH => Failure::Gone,
        errno => Failure::step("join the container's namespaces")(errno),
    })?;
    let (mut reports, report) = pipe().map_err(|error| Failure::Other(error.to_string()))?;
    let child = sys::child(Child::Own, Some(cgroup.as_fd())).map_err(|errno| match errno {
        Errno::EAGAIN => Failure::TooManyProcesses,
        Errno::ENOMEM if ends(&init) => Failure::Gone,
        errno => Failure::step("start a process in the container")(errno),
    })?;
    drop(init);
    let Some(child) = child else {
        drop(reports);
        let failure = become_process(task, console);
        let text = serde_json::to_vec(&failure).expect("a failure is plain data");
        let _ = { report }.write_all(&text);
        std::process::exit(1);
    };
    drop(report);
    let mut text = Vec::new();
    reports.read_to_end(&mut text).map_err(|error| Failure::Other(error.to_string()))?;
    if text.is_empty() {
        return Ok(child.as_raw());
    }
    let _ = waitpid(child, None);
    Err(serde_json::from_slice(&text).unwrap_or_else(|error| Failure::Other(error.to_string())))
}

/// Whether the container's first process is at its end. In its namespace of pids, no process can be made from then on,
/// which is told as a lack of memory (clone(2)); it is at its end once all others there are, too.
fn ends(init: &OwnedFd) -> bool {
    let patience = PollTimeout::from(1000_u16);
    poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], patience).is_ok_and(|ready| ready > 0)
}

/// All that the kernel can join by one call on a pidfd (setns(2), since Linux 5.8).
fn namespaces(given: &[LinuxNamespaceType]) -> CloneFlags {
    given.iter().fold(CloneFlags::empty(), |flags, namespace| {
        flags
            | match namespace {
                LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
                LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
                LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
                LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
                LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
                LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
                LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
                LinuxNamespaceType::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
            }
    })
}

/// The container's cgroup. One that the container has divided takes no processes of its own (the "no
/// internal process" rule of `cgroup-v2.rst`); then it is that of the first process.
fn open_cgroup(directory: &Path, init: &OwnedFd) -> Result<OwnedFd, Errno> {
    let is_divided =
        std::fs::read(directory.join("cgroup.subtree_control")).is_ok_and(|text| !text.is_empty());
    let inner = if is_divided { cgroup_of(init) } else { None };
    let directory = inner.as_deref().unwrap_or(directory);
    open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn cgroup_of(process: &OwnedFd) -> Option<PathBuf> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(ROOT).join(path))
}

/// A file of the agent's /proc, so it is written before the mounts change; the child inherits it.
fn set_oom_score(process: &Process) -> Result<(), Failure> {
    let Some(score) = process.oom_score_adj() else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .map_err(|error| Failure::Other(format!("cannot set the OOM score: {error}")))
}

/// Becomes the command of `task`; returns only why that failed.
fn become_process(task: &ExecTask, console: Option<UnixStream>) -> Failure {
    prepare(task, console).unwrap_or_else(|failure| failure)
}

fn prepare(task: &ExecTask, console: Option<UnixStream>) -> Result<Failure, Failure> {
    let process = &task.process;
    let syscall = create_syscall();
    let syscall = syscall.as_ref();
    // Who loses its worker before it is told to the agent must not become a process nobody knows.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::step("depend on the worker"))?;
    setsid().map_err(Failure::step("start a session"))?;
    if task.joining.namespaces.contains(&LinuxNamespaceType::User) {
        // What follows is for the user namespace's root to do.
        set_ids(syscall, 0, 0)?;
    }
    for rlimit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(rlimit).map_err(|error| libcontainer("set a resource limit", &error))?;
    }
    if let Some(console) = console {
        // It closes the socket.
        tty::setup_console(syscall, console.into_raw_fd(), false)
            .map_err(|error| libcontainer("make a terminal", &error))?;
    }
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if no_new_privileges {
        prctl::set_no_new_privs().map_err(Failure::step("forbid new privileges"))?;
    }
    umask(Mode::from_bits_truncate(process.user().umask().unwrap_or(0o022)));
    // Root enters directories that the user may not; the user those that root may not, on a network.
    let entered = chdir(process.cwd());
    set_groups(process)?;
    set_ids(syscall, process.user().uid(), process.user().gid())?;
    syscall.close_range(0).map_err(|error| libcontainer("close descriptors", &error))?;
    // Without no_new_privileges a filter needs CAP_SYS_ADMIN; with it, it comes as late as it can.
    if !no_new_privileges {
        filter_calls(task)?;
    }
    capabilities::reset_effective(syscall).map_err(|error| libcontainer("reset capabilities", &error))?;
    if let Some(wanted) = process.capabilities() {
        capabilities::drop_privileges(wanted, syscall)
            .map_err(|error| libcontainer("drop capabilities", &error))?;
    }
    entered.or_else(|_| chdir(process.cwd())).map_err(Failure::step("enter the working directory"))?;
    // Of a directory outside the root the kernel says "(unreachable)…".
    let cwd = getcwd().map_err(Failure::step("find the working directory"))?;
    if !cwd.is_absolute() {
        return Err(Failure::Other("the working directory is outside the container".to_owned()));
    }
    let file = command(process)?;
    let environment = environment(process);
    prctl::set_pdeathsig(None).map_err(Failure::step("outlive the worker"))?;
    if no_new_privileges {
        filter_calls(task)?;
    }
    Ok(become_program(&file, process, environment))
}

fn set_groups(process: &Process) -> Result<(), Failure> {
    let groups = process.user().additional_gids().iter().flatten();
    let groups: Vec<Gid> = groups.map(|group| Gid::from_raw(*group)).collect();
    match setgroups(&groups) {
        // A user namespace may forbid it; then there are none to take away either.
        Err(Errno::EPERM) if groups.is_empty() => Ok(()),
        result => result.map_err(Failure::step("set the additional groups")),
    }
}

fn set_ids(syscall: &dyn Syscall, user: u32, group: u32) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(group));
    prctl::set_keepcaps(true).map_err(Failure::step("keep capabilities"))?;
    setresgid(gid, gid, gid).map_err(Failure::step("set the group"))?;
    setresuid(uid, uid, uid).map_err(Failure::step("set the user"))?;
    if user != 0 {
        capabilities::reset_effective(syscall).map_err(|error| libcontainer("keep capabilities", &error))?;
    }
    prctl::set_keepcaps(false).map_err(Failure::step("keep capabilities no longer"))
}

#[cfg(feature = "seccomp")]
fn filter_calls(task: &ExecTask) -> Result<(), Failure> {
    let Some(filter) = &task.joining.seccomp else { return Ok(()) };
    libcontainer::seccomp::initialize_seccomp(filter)
        .map(drop)
        .map_err(|error| libcontainer("filter system calls", &error))
}

/// The agent has refused the container.
#[cfg(not(feature = "seccomp"))]
fn filter_calls(task: &ExecTask) -> Result<(), Failure> {
    match task.joining.seccomp {
        None => Ok(()),
        Some(_) => Err(Failure::Other("this agent has no seccomp".to_owned())),
    }
}

/// The environment of the process. HOME, if it has none, is what the container's passwd(5) says.
fn environment(process: &Process) -> Vec<OsString> {
    let mut environment: Vec<OsString> = process.env().iter().flatten().map(OsString::from).collect();
    let has_home = process.env().iter().flatten().any(|entry| entry.starts_with("HOME="));
    if !has_home {
        environment.push(format!("HOME={}", home(&passwd(), process.user().uid())).into());
    }
    environment
}

/// The file is the container's, so it may be anything: a pipe that nobody writes, or one without an end.
fn passwd() -> String {
    let mut text = Vec::new();
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/etc/passwd");
    // A file that cannot be read has no users in it.
    let _ = file.and_then(|file| file.take(MAX_PASSWD).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn home(passwd: &str, user: u32) -> &str {
    let user = user.to_string();
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut homes = fields.filter(|fields| fields.len() >= 6 && fields[2] == user).map(|fields| fields[5]);
    homes.next().filter(|home| !home.is_empty()).unwrap_or("/")
}

fn libcontainer(doing: &str, error: &dyn std::error::Error) -> Failure {
    Failure::Other(format!("cannot {doing}: {}", crate::log::chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_that_of_the_containers_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:100::/home/me:/bin/sh\nno:x:7:7:::\n";
        for (user, want) in [(0, "/root"), (1000, "/home/me"), (7, "/"), (100, "/"), (1, "/")] {
            assert_eq!(home(passwd, user), want, "{user}");
        }
    }

    #[test]
    fn namespaces_are_joined_by_one_call() {
        let given = [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid, LinuxNamespaceType::Time];
        assert_eq!(namespaces(&given).bits(), libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWTIME);
    }
}
