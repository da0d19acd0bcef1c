//! The options of `vc run`, and those about the machine.

use std::num::NonZeroU8;
use std::path::PathBuf;

use clap::Args;
use vc_hypervisor::Accelerator;
use vc_types::MiB;

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

    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
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
