//! The options of the commands that every OCI runtime has, as runc and crun call them.

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vc_agent::Signal;
use vc_types::ContainerId;

use super::Machine;
use crate::values::{Env, User};

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
#[group(id = "what", required = true, multiple = true, args = ["process", "command"])]
pub(crate) struct Exec {
    /// File with the process in the form of config.json, instead of the options below; it says whether there is a
    /// terminal, whatever --tty says
    #[arg(short = 'p', long, value_name = "FILE", conflicts_with_all = ["env", "cwd", "user", "cap", "command"])]
    pub(crate) process: Option<PathBuf>,

    /// Return once the process runs
    #[arg(short = 'd', long)]
    pub(crate) detach: bool,

    /// File that gets the pid of the process here that ends as the one in the container does
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,

    /// Only 0 can be had: open files cannot be passed into a machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,

    /// Give the process a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,

    /// Set an environment variable; may be repeated
    #[arg(short = 'e', long, value_name = "K=V")]
    pub(crate) env: Vec<Env>,

    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,

    /// User and group, as numbers
    #[arg(short = 'u', long, value_name = "UID[:GID]")]
    pub(crate) user: Option<User>,

    /// Add a capability, such as CAP_NET_RAW; may be repeated
    #[arg(short = 'c', long, value_name = "NAME")]
    pub(crate) cap: Vec<String>,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,

    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// File with the limits in the form of config.json's linux.resources; - is the standard input
    #[arg(short = 'r', long, value_name = "FILE", conflicts_with_all = ["memory", "memory_reservation", "memory_swap", "cpu_shares", "cpu_quota", "cpu_period", "pids_limit"])]
    pub(crate) resources: Option<PathBuf>,

    /// Memory in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<i64>,

    /// Memory that is not taken away, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<i64>,

    /// Memory and swap together, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,

    /// Weight of its use of the processors, 2 to 262144
    #[arg(long, visible_alias = "cpu-share", value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,

    /// Time of processors in each period, in microseconds
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,

    /// Length of a period, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,

    /// Number of processes
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Print what it uses now, and end
    #[arg(long)]
    pub(crate) stats: bool,

    /// Seconds between two lines
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    pub(crate) interval: NonZeroU16,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,
}

impl Events {
    /// What it uses now, and no more.
    pub(crate) fn once(id: ContainerId) -> Self {
        Self { stats: true, interval: NonZeroU16::MIN, id }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// How to print it: json is a list of the pids that stand for the container on the host
    #[arg(short = 'f', long, value_enum, default_value_t = ListFormat::Table)]
    pub(crate) format: ListFormat,

    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: ContainerId,

    /// Options for the container's ps
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct MakeSpec {
    /// Directory of the OCI bundle
    #[arg(short = 'b', long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
}
