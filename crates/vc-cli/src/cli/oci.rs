//! The options of the commands that every OCI runtime has, as runc and crun call them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vc_agent::Signal;
use vc_types::ContainerId;

use super::Machine;

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Directory of the OCI bundle
    #[arg(short = 'b', long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,

    /// Socket that is sent the terminal's master, if the process has a terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,

    /// File that gets the pid of the process that ends as the container does
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Only 0 can be had: open files cannot be passed into a machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,

    /// Accepted and without effect: the machine has a root of its own
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,

    /// Accepted and without effect: the machine has a session keyring of its own
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}

/// The name of a container, and nothing else.
#[derive(Args, Debug)]
pub(crate) struct Id {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    /// Send it to every process in the container
    #[arg(short = 'a', long)]
    pub(crate) all: bool,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,

    /// The signal, by name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(crate) signal: Signal,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Kill the container first if it is not stopped; it may also be missing
    #[arg(short = 'f', long)]
    pub(crate) force: bool,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// How to print it
    #[arg(short = 'f', long, value_enum, default_value_t = ListFormat::Table)]
    pub(crate) format: ListFormat,

    /// Print only names
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Owner {
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}
