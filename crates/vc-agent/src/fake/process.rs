//! Processes that a test ends, or that end as their program says.

use std::collections::VecDeque;

use crate::{ExitStatus, Signal, TerminalSize};

/// How many bytes a pipe holds, as on Linux (pipe(7)).
const PIPE_SIZE: usize = 65_536;

/// How a process ends that SIGKILL ends.
pub(super) const KILLED: ExitStatus = ExitStatus(137);

/// What a command does, when the container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Runs until the test or a signal ends it, and reads nothing.
    Waits,
    /// Copies its standard input to its standard output, and ends with status 0.
    Copies,
    /// Prints, and ends.
    Prints {
        /// What goes to its standard output.
        stdout: Vec<u8>,
        /// What goes to its standard error.
        stderr: Vec<u8>,
        /// How it ends.
        status: ExitStatus,
    },
    /// Prints the file that is bound to this path in the container; ends with status 1 when none is.
    PrintsFile(String),
    /// Prints the guest's clock in seconds since 1970, and a newline.
    PrintsTime,
    /// Waits for a line of input, and prints the rows and columns of its terminal.
    PrintsTerminalSize,
    /// Takes memory until the container's limit ends it; without a limit it waits.
    Hogs,
    /// The command does not exist in the container.
    Missing,
    /// The command exists, but cannot be executed.
    NotExecutable,
}

/// One stream of a process.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    /// Nobody writes any more.
    pub(super) ended: bool,
}

impl Pipe {
    /// Takes what there is room for.
    pub(super) fn write(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(PIPE_SIZE.saturating_sub(self.bytes.len()));
        self.bytes.extend(&data[..taken]);
        taken
    }

    /// At most `most` bytes: none when the stream has ended, `None` when there are none yet.
    pub(super) fn read(&mut self, most: usize) -> Option<Vec<u8>> {
        if self.bytes.is_empty() && !self.ended {
            return None;
        }
        let length = most.min(self.bytes.len());
        Some(self.bytes.drain(..length).collect())
    }
}

/// A process and its streams.
#[derive(Debug)]
pub(super) struct Process {
    program: Program,
    pub(super) has_terminal: bool,
    pub(super) size: Option<TerminalSize>,
    pub(super) stdin: Pipe,
    pub(super) stdout: Pipe,
    pub(super) stderr: Pipe,
    pub(super) status: Option<ExitStatus>,
    /// Somebody has its exit status; Kata's agent forgets its streams then.
    pub(super) was_waited_for: bool,
    runs: bool,
    frozen: bool,
}

impl Process {
    pub(super) fn new(program: Program, has_terminal: bool) -> Self {
        Self {
            program,
            has_terminal,
            size: None,
            stdin: Pipe::default(),
            stdout: Pipe::default(),
            stderr: Pipe::default(),
            status: None,
            was_waited_for: false,
            runs: false,
            frozen: false,
        }
    }

    pub(super) fn start(&mut self) {
        self.runs = true;
        self.go_on();
    }

    pub(super) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.go_on();
    }

    /// Whether it runs and takes memory.
    pub(super) fn hogs(&self) -> bool {
        self.runs && self.status.is_none() && self.program == Program::Hogs
    }

    /// Lets the program do what it can do now.
    pub(super) fn go_on(&mut self) {
        if !self.runs || self.frozen || self.status.is_some() {
            return;
        }
        match &self.program {
            Program::Copies => {
                let (first, second) = self.stdin.bytes.as_slices();
                let taken = self.stdout.write(first);
                let rest = if taken == first.len() { self.stdout.write(second) } else { 0 };
                self.stdin.bytes.drain(..taken + rest);
                if self.stdin.ended && self.stdin.bytes.is_empty() {
                    self.end(ExitStatus(0));
                }
            }
            Program::Prints { stdout, stderr, status } => {
                let status = *status;
                self.stdout.bytes.extend(stdout);
                self.stderr.bytes.extend(stderr);
                self.end(status);
            }
            Program::PrintsTerminalSize if self.stdin.bytes.contains(&b'\n') => {
                let size = self.size.unwrap_or(TerminalSize { rows: 0, columns: 0 });
                self.stdout.bytes.extend(format!("{} {}\r\n", size.rows, size.columns).bytes());
                self.end(ExitStatus(0));
            }
            _ => {}
        }
    }

    /// Takes a signal.
    pub(super) fn take(&mut self, signal: Signal) {
        match signal {
            Signal::KILL => self.end(KILLED),
            Signal::TERM => self.end(ExitStatus(143)),
            _ => {}
        }
    }

    /// Ends the process, unless it has ended.
    pub(super) fn end(&mut self, status: ExitStatus) {
        if self.status.is_none() {
            self.status = Some(status);
            self.stdin.bytes.clear();
            for pipe in [&mut self.stdin, &mut self.stdout, &mut self.stderr] {
                pipe.ended = true;
            }
        }
    }
}
