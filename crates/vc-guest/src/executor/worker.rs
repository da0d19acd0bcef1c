//! A worker: does one task, answers, and goes once the agent watches what it made.

use super::join::exec;
use super::namespace::{pid_namespace, user_namespace};
use super::protocol::{Answer, Failure, STATE, Task};
use super::workload::Workload;
use crate::limits::make_room;
use crate::log::chain;
use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// The longest task taken, in bytes: arguments and environment have a limit of 1 MiB, and JSON may
/// need six bytes for one.
const MAX_TASK: u64 = 8 << 20;

/// One worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) control: UnixStream,
    /// The first process of the container to be joined.
    pub(super) init: Option<OwnedFd>,
}

impl Worker {
    /// Does the one task that comes over the control socket. With `streams`, those three are the
    /// standard streams of what is made.
    pub(super) fn run(mut self, streams: &[OwnedFd]) -> ExitCode {
        if let [stdin, stdout, stderr] = streams
            && (dup2_stdin(stdin).is_err() || dup2_stdout(stdout).is_err() || dup2_stderr(stderr).is_err())
        {
            return ExitCode::FAILURE;
        }
        let Some(task) = self.task() else { return ExitCode::FAILURE };
        let answer = match self.perform(task) {
            Ok(pid) => Answer::Started { pid },
            Err(failure) => Answer::Failed(failure),
        };
        let mut line = serde_json::to_vec(&answer).expect("an answer is plain data");
        line.push(b'\n');
        // The agent says a word once it watches the new process; nothing is left to do when it is gone.
        let told = self.control.write_all(&line).and_then(|()| self.control.read(&mut [0]));
        if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn task(&self) -> Option<Task> {
        let mut line = Vec::new();
        // The agent sends nothing after the task before it has the answer.
        BufReader::new(&self.control).take(MAX_TASK).read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice(&line).ok()
    }

    fn perform(&mut self, task: Task) -> Result<i32, Failure> {
        match task {
            Task::Create { id, bundle, rlimits, console } => {
                make_room(&rlimits);
                create(id, bundle, console)
            }
            Task::Exec(task) => exec(&task, self.init.take().ok_or(Failure::Gone)?),
            Task::PidNamespace => pid_namespace().map_err(|error| other(&error)),
            Task::UserNamespace(mappings) => user_namespace(&mappings),
        }
    }
}

fn create(id: String, bundle: PathBuf, console: Option<PathBuf>) -> Result<i32, Failure> {
    let (mut reports, report) = pipe().map_err(|error| other(&error))?;
    let result = build(id, bundle, console, Workload { report: Arc::new(report) });
    // A report says more than libcontainer's text.
    match (read_report(&mut reports), result) {
        (Some(failure), _) => Err(failure),
        (None, result) => result.map_err(|error| other(&error)),
    }
}

fn build(
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
    container.set_status(ContainerStatus::Running).save()?;
    container.pid().map(|pid| pid.as_raw()).ok_or(LibcontainerError::Other("no pid".to_owned()))
}

fn read_report(reports: &mut PipeReader) -> Option<Failure> {
    // Whoever has to report has done so by now; processes that still hold the pipe say nothing more.
    fcntl(&*reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut text = vec![0; 4096];
    let length = reports.read(&mut text).ok().filter(|length| *length > 0)?;
    let mut failures = serde_json::Deserializer::from_slice(&text[..length]).into_iter::<Failure>();
    failures.next()?.ok()
}

fn other(error: &dyn std::error::Error) -> Failure {
    Failure::Other(chain(error))
}
