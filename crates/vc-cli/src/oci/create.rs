//! `vc create`: leaves an owner behind that has the container, and waits until it has it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use command_fds::{CommandFdExt, FdMapping};
use oci_spec::runtime::Spec;
use serde::Serialize;
use vc_types::ContainerId;

use super::protocol::{Ask, frame, read_frame};
use super::record::{Record, Status, replace};
use super::remove::remove;
use super::root::{ContainerDir, Lock, Root};
use super::state::Now;
use super::{attend, cgroup, control, namespaces, pod};
use crate::cli::{Create, Global};
use crate::config::Config;
use crate::failure::Failure;
use crate::machine::MachinePlan;
use crate::owner::{self, Answer, CREATOR, LOCK};
use crate::run::load_bundle;
use crate::sys;

/// How much of an owner's log is told when it ended without a word, in bytes.
const LAST_WORDS: u64 = 1024;

/// Creates the container; its owner lives on.
pub(crate) fn create(root: &Root, global: &Global, options: &Create) -> Result<(), Failure> {
    // The owner is not to hold what the caller left open, such as the pipes of a monitor.
    sys::keep_descriptors().map_err(|error| Failure::step("keep open files from the owner", error))?;
    if options.preserve_fds > 0 {
        return Err(Failure::message("open files cannot be passed into a machine; leave out --preserve-fds"));
    }
    let bundle = options.bundle.canonicalize();
    let bundle = bundle
        .map_err(|error| Failure::step(format!("use the bundle {}", options.bundle.display()), error))?;
    let spec = load_bundle(&bundle)?;
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    check_terminal(terminal, options.console_socket.as_deref())?;
    let pid = match pod::sandbox_of(&spec)? {
        None => in_own_machine(root, global, options, bundle, spec)?,
        Some(sandbox) => in_machine_of(&sandbox, root, options, bundle, spec)?,
    };
    control::undone(root, &options.id, write_pid(options.pid_file.as_deref(), pid))
}

/// Writes the file from which a monitor learns whom it waits for, if it wants one.
pub(super) fn write_pid(file: Option<&Path>, pid: u32) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let written = replace(&absolute(file)?, pid.to_string().as_bytes());
    written.map_err(|error| Failure::step(format!("write {}", file.display()), error))
}

/// Gives the pid of the owner.
fn in_own_machine(
    root: &Root,
    global: &Global,
    options: &Create,
    bundle: PathBuf,
    spec: Spec,
) -> Result<u32, Failure> {
    namespaces::check(&spec, None)?;
    let config = Config::load(global, &options.machine)?;
    let debug = global.debug || config.switch("runtime.enable_debug");
    let machine = MachinePlan::of(config, &spec)?;
    let console_socket = options.console_socket.as_deref().map(absolute).transpose()?;
    let (reserved, record) = Reserved::of(root, options, bundle, &spec)?;
    let dir = reserved.dir.path().to_owned();
    let orders = owner::Orders { dir, record, spec, machine, console_socket, debug };
    reserved.leave_behind([owner::COMMAND, options.id.as_str()], &orders)
}

/// Gives the pid of the process that stays with the container.
fn in_machine_of(
    sandbox: &ContainerId,
    root: &Root,
    options: &Create,
    bundle: PathBuf,
    spec: Spec,
) -> Result<u32, Failure> {
    let of = root.get(sandbox)?;
    let now = Now::of(&of)?;
    let Some(pid) = now.record.pid.filter(|_| now.status() != Status::Stopped) else {
        let why = format!("container {sandbox}, whose machine this one is to be in, does not run");
        return Err(Failure::message(why));
    };
    namespaces::check(&spec, Some(pid))?;
    let console_socket = options.console_socket.as_deref().map(absolute).transpose()?;
    let (reserved, record) = Reserved::of(root, options, bundle, &spec)?;
    let member = owner::Member { dir: reserved.dir.path().to_owned(), record, spec };
    let ask = Ask::Add { member: Box::new(member) };
    let orders = attend::Orders { dir: of.path().to_owned(), ask, console_socket };
    reserved.leave_behind([super::ATTEND, options.id.as_str()], &orders)
}

/// The directory of a container that there is not yet.
struct Reserved {
    dir: ContainerDir,
    lock: File,
    cgroups: Vec<PathBuf>,
}

impl Reserved {
    fn of(root: &Root, options: &Create, bundle: PathBuf, spec: &Spec) -> Result<(Self, Record), Failure> {
        root.make()?;
        let mut record = Record::new(options.id.clone(), bundle, spec);
        record.cgroups = cgroup::of(spec).map_err(|error| Failure::step("look for cgroups", error))?;
        let (dir, lock) = root.reserve(&record)?;
        Ok((Self { dir, lock: lock.into_file(), cgroups: record.cgroups.clone() }, record))
    }

    /// Starts the process that has the container made, and gives its pid once it is; if it is not, nothing is left.
    fn leave_behind(self, what: [&str; 2], orders: &impl Serialize) -> Result<u32, Failure> {
        let ordered = order(what, orders, &self);
        if ordered.is_err() {
            clean_up(self.dir, self.lock);
            cgroup::remove(&self.cgroups);
        }
        ordered
    }
}

/// runc's rules: a terminal's other end must go somewhere, and only a terminal's can.
pub(super) fn check_terminal(terminal: bool, socket: Option<&Path>) -> Result<(), Failure> {
    match (terminal, socket) {
        (true, None) => Err(Failure::message(
            "the process is to have a terminal; say with --console-socket who gets its other end",
        )),
        (false, Some(_)) => Err(Failure::message(
            "--console-socket is for a process with a terminal; set process.terminal in config.json",
        )),
        _ => Ok(()),
    }
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::step(format!("use {}", path.display()), error))
}

/// Starts the process and has it see to the container; gives its pid.
fn order(what: [&str; 2], orders: &impl Serialize, reserved: &Reserved) -> Result<u32, Failure> {
    let failed = |error| Failure::step("start the owner of the container", error);
    let lock = reserved.lock.try_clone().map_err(failed)?.into();
    let (mut child, answer) = leave_behind(what, orders, vec![(lock, LOCK)]).map_err(failed)?;
    match answer {
        Some(Answer::Created) => Ok(child.id()),
        Some(Answer::Failed { code, message }) => {
            // Until its end, so that nothing is left when this command ends.
            let _ = child.wait();
            Err(Failure::message(message).with_code(code))
        }
        None => Err(Failure::message(died(&mut child, reserved.dir.path()))),
    }
}

/// Starts this program again, as a process that outlives this one, gives it its orders, and waits for its answer;
/// none when it ended without one.
pub(super) fn leave_behind(
    what: [&str; 2],
    orders: &impl Serialize,
    files: Vec<(OwnedFd, RawFd)>,
) -> io::Result<(Child, Option<Answer>)> {
    let orders = frame(orders)?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let files = files.into_iter().chain([(theirs.into(), CREATOR)]);
    let kept = files.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    let mut command = Command::new("/proc/self/exe");
    command.args(what).fd_mappings(kept).map_err(io::Error::other)?;
    let child = command.spawn()?;
    // This process's copy of the other end; without it, the death of the child is an end of file.
    drop(command);
    // A child that died at once is noticed by the read.
    let _ = ours.write_all(&orders);
    // It has deadlines for all it does.
    Ok((child, read_frame(&mut ours)?))
}

fn died(owner: &mut Child, dir: &Path) -> String {
    let how = owner.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let log = dir.join("owner.log");
    let said = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut said = Vec::new();
        file.take(LAST_WORDS).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    });
    format!("the owner of the container ended early ({how}): {}", said.unwrap_or_default())
}

/// Removes what an owner left that died; one that failed has done so itself.
fn clean_up(dir: ContainerDir, lock: File) {
    if dir.path().exists()
        && let Err(failure) = remove(dir, Lock::held(lock))
    {
        tracing::warn!("{}", failure.for_engines());
    }
}
