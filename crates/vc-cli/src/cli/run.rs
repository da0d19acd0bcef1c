//! The options of `vc run`, and those about the machine.

use std::num::NonZeroU8;
use std::path::PathBuf;

use clap::Args;
use vc_hypervisor::Accelerator;
use vc_types::MiB;

use super::Create;
use crate::failure::Failure;
use crate::values::{Env, MountJson, User};

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) rootfs: Rootfs,

    #[command(flatten)]
    pub(crate) machine: Machine,

    /// Give the command a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,

    /// Pass the standard input on to the command
    #[arg(short = 'i', long)]
    pub(crate) interactive: bool,

    /// Set an environment variable; may be repeated
    #[arg(short = 'e', long = "env", value_name = "K=V")]
    pub(crate) env: Vec<Env>,

    /// Working directory of the command
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,

    /// User and group of the command, as numbers
    #[arg(short = 'u', long, value_name = "UID[:GID]")]
    pub(crate) user: Option<User>,

    /// Print when each phase began and how long it took, on standard error
    #[arg(long)]
    pub(crate) timeline: bool,

    /// With a bundle alone: leave the container behind once it runs
    #[arg(short = 'd', long, requires = "bundle")]
    pub(crate) detach: bool,

    /// With a bundle alone: socket that is sent the terminal's master
    #[arg(long, value_name = "SOCKET", requires = "bundle")]
    pub(crate) console_socket: Option<PathBuf>,

    /// With a bundle alone: file that gets the pid of the process that ends as the container does
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Only 0 can be had: open files cannot be passed into a machine
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    pub(crate) preserve_fds: u32,

    /// Accepted and without effect: the machine has a root of its own
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,

    /// Accepted and without effect: the machine has a session keyring of its own
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,

    /// The command and its arguments; with a bundle alone, the name of the container
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// A container that is run by its name, as runc does it.
#[derive(Debug)]
pub(crate) struct NamedRun {
    pub(crate) create: Create,
    /// Whether it is left behind once it runs.
    pub(crate) detach: bool,
}

impl Run {
    /// Whether it is a container with a name, which other commands know, rather than a command.
    pub(crate) fn is_named(&self) -> bool {
        let has_bundle_alone =
            self.rootfs.bundle.is_some() && self.rootfs.layers.is_empty() && self.rootfs.mounts.is_empty();
        let is_left = self.detach || self.console_socket.is_some() || self.pid_file.is_some();
        is_left || (has_bundle_alone && !self.command.is_empty())
    }

    /// The container with a name.
    pub(crate) fn named(self) -> Result<NamedRun, Failure> {
        let of_a_command = [
            ("--layer", !self.rootfs.layers.is_empty()),
            ("--rootfs-mount", !self.rootfs.mounts.is_empty()),
            ("--tty", self.tty),
            ("--interactive", self.interactive),
            ("--env", !self.env.is_empty()),
            ("--workdir", self.workdir.is_some()),
            ("--user", self.user.is_some()),
            ("--timeline", self.timeline),
        ];
        if let Some((option, _)) = of_a_command.iter().find(|(_, is_given)| *is_given) {
            return Err(Failure::message(format!(
                "{option} is for a command; a container with a name is as its bundle's config.json says"
            )));
        }
        let [name] = &self.command[..] else {
            return Err(Failure::message(
                "one argument goes with a bundle alone, the name of the container; what it runs is in config.json",
            ));
        };
        let id = name
            .parse()
            .map_err(|error: vc_types::InvalidId| Failure::step(format!("use the name {name}"), error))?;
        let create = Create {
            bundle: self.rootfs.bundle.unwrap_or_else(|| ".".into()),
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            machine: self.machine,
            id,
        };
        Ok(NamedRun { create, detach: self.detach })
    }
}

/// Where the root file system comes from: one of the three.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Rootfs {
    /// A layer of the root file system: an EROFS image. Repeat it for more, the top layer first
    #[arg(short = 'l', long = "layer", value_name = "FILE")]
    pub(crate) layers: Vec<PathBuf>,

    /// The root file system as a containerd snapshotter hands it over: a mount in JSON, such as
    /// {"type":"overlay","source":"overlay","options":["lowerdir=/b:/a"]}
    #[arg(long = "rootfs-mount", value_name = "JSON", conflicts_with = "layers")]
    pub(crate) mounts: Vec<MountJson>,

    /// An OCI bundle: a directory with a config.json. Without --layer and --rootfs-mount, its root must
    /// be a mounted overlay of EROFS images or a mounted EROFS image
    #[arg(short = 'b', long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
}

/// What is to be otherwise than the configuration says.
#[derive(Args, Debug, Default)]
pub(crate) struct Machine {
    /// Memory of the machine, besides what its container's limits ask for
    #[arg(short = 'm', long, value_name = "SIZE")]
    pub(crate) memory: Option<MiB>,

    /// Number of vCPUs of the machine, besides what its container's limits ask for
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<NonZeroU8>,

    /// What runs the guest's instructions: auto, kvm or tcg
    #[arg(long, value_name = "NAME")]
    pub(crate) accel: Option<Accelerator>,

    /// Directory of the guest image: vmlinux and initrd
    #[arg(long, value_name = "DIR")]
    pub(crate) guest: Option<PathBuf>,

    /// Kernel of the guest, instead of the guest image's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Initial RAM disk of the guest, instead of the guest image's
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,

    /// The QEMU program
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) qemu: Option<PathBuf>,

    /// The program that serves vsock on a host without /dev/vhost-vsock
    #[arg(long, value_name = "PROGRAM", hide = true)]
    pub(crate) vsock_program: Option<PathBuf>,
}

impl Machine {
    /// The options that are given: the key of the configuration, the option's name, the value.
    pub(crate) fn settings(&self) -> Result<Vec<(&'static str, &'static str, String)>, Failure> {
        let path = |option: &'static str, path: &PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                Failure::message(format!("{option} {}: the path is not UTF-8", path.display()))
            })
        };
        let paths = [
            ("hypervisor.qemu.guest", "--guest", &self.guest),
            ("hypervisor.qemu.kernel", "--kernel", &self.kernel),
            ("hypervisor.qemu.initrd", "--initrd", &self.initrd),
            ("hypervisor.qemu.path", "--qemu", &self.qemu),
            ("hypervisor.qemu.vsock_daemon", "--vsock-program", &self.vsock_program),
        ];
        let mut settings = Vec::new();
        for (key, option, value) in paths {
            if let Some(value) = value {
                settings.push((key, option, path(option, value)?));
            }
        }
        let values = [
            (
                "hypervisor.qemu.default_memory",
                "--memory",
                self.memory.map(|memory| memory.get().to_string()),
            ),
            ("hypervisor.qemu.default_vcpus", "--cpus", self.cpus.map(|cpus| cpus.to_string())),
            ("hypervisor.qemu.accelerator", "--accel", self.accel.map(|accel| accel.to_string())),
        ];
        settings.extend(values.into_iter().filter_map(|(key, option, value)| Some((key, option, value?))));
        Ok(settings)
    }
}
