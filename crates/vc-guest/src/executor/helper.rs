//! The executor's own side: it runs in a process with a single thread.

use super::protocol::{Answer, Failure, STATE, Task};
use super::workload::Workload;
use crate::log::chain;
use crate::sys;
use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use std::io::{PipeReader, Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

/// Serves as the agent's helper when the command line says so: `executor DESCRIPTOR TASK` or `pause`.
///
/// `None` when this process is to be the agent. Call it first of all: libcontainer needs a process
/// with a single thread.
pub fn run_helper() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).take(3).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pause"] => pause(),
        ["executor", descriptor, task] => Some(execute(descriptor, task)),
        _ => None,
    }
}

fn execute(descriptor: &str, task: &str) -> ExitCode {
    let control = descriptor.parse().ok().and_then(sys::inherited_descriptor);
    let (Some(control), Ok(task)) = (control, serde_json::from_str::<Task>(task)) else {
        return ExitCode::FAILURE;
    };
    let mut control = UnixStream::from(control);
    crate::limits::lower_open_files();
    let answer = match perform(task) {
        Ok(pid) => Answer::Started { pid },
        Err(failure) => Answer::Failed(failure),
    };
    let mut line = serde_json::to_vec(&answer).expect("an answer is plain data");
    line.push(b'\n');
    // The agent says a word once it watches the new process; nothing is left to do when it is gone.
    let told = control.write_all(&line).and_then(|()| control.read(&mut [0]));
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn perform(task: Task) -> Result<i32, Failure> {
    let (mut reports, report) = pipe().map_err(other)?;
    let workload = Workload { report: Arc::new(report) };
    let result = match task {
        Task::Create { id, bundle, console } => create(id, bundle, console, workload),
        Task::Exec { id, process, console } => exec(id, process, console, workload),
        Task::PidNamespace => return pid_namespace().map_err(other),
    };
    // A report says more than libcontainer's text, and also tells of an exec that failed after
    // libcontainer let go of it.
    match (read_report(&mut reports), result) {
        (Some(failure), _) => Err(failure),
        (None, result) => result.map_err(other),
    }
}

fn create(
    id: String,
    bundle: PathBuf,
    console: Option<PathBuf>,
    workload: Workload,
) -> Result<i32, LibcontainerError> {
    let mut container = ContainerBuilder::new(id, SyscallType::default())
        .with_root_path(STATE)?
        .with_console_socket(console)
        .with_executor(workload)
        .as_init(bundle)
        .with_systemd(false)
        .build()?;
    // Only exec reads this state, and refuses what is not running. Whether it runs is the agent's to
    // know; written here, once, no exec has to write while another one reads.
    container.set_status(ContainerStatus::Running).save()?;
    container.pid().map(|pid| pid.as_raw()).ok_or(LibcontainerError::Other("no pid".to_owned()))
}

fn exec(
    id: String,
    process: PathBuf,
    console: Option<PathBuf>,
    workload: Workload,
) -> Result<i32, LibcontainerError> {
    let pid = ContainerBuilder::new(id, SyscallType::default())
        .with_root_path(STATE)?
        .with_console_socket(console)
        .with_executor(workload)
        .as_tenant()
        .with_detach(true)
        .with_process(Some(process))
        .build()?;
    Ok(pid.as_raw())
}

/// Starts `pause` as the init of a new pid namespace.
fn pid_namespace() -> std::io::Result<i32> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = Command::new("/proc/self/exe")
        .arg("pause")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    i32::try_from(child.id()).map_err(std::io::Error::other)
}

/// The init of a shared pid namespace: reaps orphans until it is killed.
fn pause() -> Option<ExitCode> {
    if sys::ignore_signal(Signal::SIGCHLD).is_err() {
        return Some(ExitCode::FAILURE);
    }
    loop {
        nix::unistd::pause();
    }
}

fn read_report(reports: &mut PipeReader) -> Option<Failure> {
    // Whoever has to report has done so by now; processes that still hold the pipe say nothing more.
    fcntl(&*reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut text = vec![0; 4096];
    let length = reports.read(&mut text).ok().filter(|length| *length > 0)?;
    let mut failures = serde_json::Deserializer::from_slice(&text[..length]).into_iter::<Failure>();
    failures.next()?.ok()
}

fn other(error: impl std::error::Error) -> Failure {
    Failure::Other(chain(&error))
}
