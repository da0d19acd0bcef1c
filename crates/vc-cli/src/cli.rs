//! The command line.

mod direct_volume;
mod explain;
mod guest;
mod oci;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use direct_volume::{DirectVolume, Volume};
pub(crate) use explain::Explain;
pub(crate) use guest::{Guest, GuestBuild};
pub(crate) use oci::{Create, Delete, Events, Exec, Id, Kill, List, ListFormat, MakeSpec, Ps, Update};
pub(crate) use run::{Machine, NamedRun, Rootfs, Run};

/// Runs OCI containers inside QEMU virtual machines.
#[derive(Debug, Parser)]
#[command(name = "vc", version, about)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, named before it.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Containers' states [default: /run/vc, or vc in $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// File to which errors are appended, besides standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,

    /// How that file is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Log more to standard error
    #[arg(long)]
    pub(crate) debug: bool,

    /// Configuration file, instead of those in /etc/vc and ~/.config/vc
    ///
    /// These are /etc/vc/config.toml and ~/.config/vc/config.toml.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Set a key, such as hypervisor.qemu.guest=/srv/guest; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Accepted and without effect: a container's cgroup is in its machine
    #[arg(long, hide = true)]
    pub(crate) systemd_cgroup: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The command, such as `guest build`
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// How the file of `--log` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of `key=value` each.
    Text,
    /// One JSON object each.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new container in a new machine, and remove both when it ends.
    ///
    /// The exit code is the command's; 128+n when signal n ended it; 125 when vc itself failed; 126
    /// when the command cannot be executed; 127 when it does not exist.
    Run(Box<Run>),
    /// Tell how a container's storage would reach its machine, and why; changes nothing.
    ///
    /// The exit code is 125 when the container cannot be had, with the reason on standard error.
    Explain(Explain),
    /// Create a container from an OCI bundle; its process waits for the start
    Create(Box<Create>),
    /// Let a created container's process run
    Start(Id),
    /// Print the state of a container in JSON
    State(Id),
    /// Send a signal to a container's process
    Kill(Kill),
    /// Remove a container that is stopped, or by force one that is not
    Delete(Delete),
    /// List the containers
    #[command(visible_alias = "ls")]
    List(List),
    /// Run another process in a container that runs
    Exec(Box<Exec>),
    /// List the processes in a container, with its own ps
    Ps(Ps),
    /// Freeze the processes of a container
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print what a container uses, again and again
    Events(Events),
    /// Print what a container uses now, as `events --stats` does
    Stats(Id),
    /// Leave volumes to the runtime, and ask for them: what CSI drivers call
    #[command(subcommand)]
    DirectVolume(DirectVolume),
    /// Remove the containers whose owners were killed, and say which
    Recover,
    /// Print what this runtime can do, in the form of the OCI runtime specification
    Features,
    /// Write a config.json to start from
    Spec(MakeSpec),
    /// Build the guest image
    #[command(subcommand)]
    Guest(Guest),
    /// Tell what this host lacks, with the remedy
    Check(Box<Machine>),
    /// Print the effective configuration, and where each value comes from
    Config(Box<Machine>),
    /// Print what a shell completes the command line by
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the manual page of vc, or of a command: `vc man run | man -l -`
    Man(Man),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_takes_everything_behind_it() {
        for line in [
            ["vc", "run", "-l", "a", "--", "sh", "-c", "x -t"],
            ["vc", "run", "-l", "a", "sh", "-c", "-t", "x -t"],
        ] {
            let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!("run") };
            assert_eq!(run.command[0], "sh");
            assert!(!run.tty);
        }
        assert!(Cli::try_parse_from(["vc", "run", "sh"]).is_err(), "a root file system is required");
    }
}
