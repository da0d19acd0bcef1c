//! The machine that the options ask for.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};
use vc_container::{Passing, SandboxSpec, Sharing, Timing};
use vc_device::{Port, VfioMode, VfioPolicy};
use vc_hypervisor::{Accelerator, MachineSpec, MemoryGrowth};
use vc_qemu::{MachineType, Qemu, QemuConfig};
use vc_types::{HostPath, MiB, SandboxId};

use crate::config::Config;
use crate::failure::Failure;
use crate::guest_image::{self, GuestImage};
use crate::serial::text;

/// What a machine is made of: every value is decided and every path absolute, so that another process,
/// in another directory, makes the same machine of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachinePlan {
    vcpus: NonZeroU8,
    max_vcpus: NonZeroU8,
    #[serde(with = "text")]
    memory: MiB,
    #[serde(with = "text")]
    max_memory: MiB,
    #[serde(with = "text")]
    accelerator: Accelerator,
    machine_type: String,
    kernel: PathBuf,
    initrd: PathBuf,
    kernel_params: Vec<String>,
    ports: u8,
    qemu: PathBuf,
    vsock_program: PathBuf,
    /// How directories may be shared with it.
    pub(crate) sharing: Sharing,
    passing: Passing,
    /// How long the agent may take to answer, and the creation of a container.
    boot: Duration,
    create: Duration,
}

const VCPUS: &str = "hypervisor.qemu.default_vcpus";
const MAX_VCPUS: &str = "hypervisor.qemu.default_maxvcpus";
const MEMORY: &str = "hypervisor.qemu.default_memory";
const MAX_MEMORY: &str = "hypervisor.qemu.default_maxmemory";

impl MachinePlan {
    /// The machine for a first container with this specification, whose annotations are heard as far as the
    /// configuration allows.
    pub(crate) fn of(config: Config, spec: &Spec) -> Result<Self, Failure> {
        let annotations = spec.annotations().iter().flatten();
        let annotations = annotations.map(|(name, value)| (name.as_str(), value.as_str()));
        Self::new(&config.with_annotations(annotations)?, spec)
    }

    fn new(config: &Config, spec: &Spec) -> Result<Self, Failure> {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let vcpus = vcpus(config, resources)?;
        let memory = memory(config, resources)?;
        let image = GuestImage::locate(config)?;
        let accelerator = config.text("hypervisor.qemu.accelerator").parse();
        let machine_type = config.text("hypervisor.qemu.machine_type").to_owned();
        if machine_called(&machine_type).is_none() {
            let why = format!("there is no machine {machine_type:?}; there are q35, pc and microvm");
            return Err(config.invalid("hypervisor.qemu.machine_type", why));
        }
        Ok(Self {
            vcpus,
            max_vcpus: max_vcpus(config)?.unwrap_or(vcpus).max(vcpus),
            memory,
            max_memory: size(config, MAX_MEMORY, config.number(MAX_MEMORY))?.unwrap_or(memory).max(memory),
            accelerator: accelerator.map_err(|error| config.invalid("hypervisor.qemu.accelerator", error))?,
            machine_type,
            kernel: image.kernel.as_path().to_owned(),
            initrd: image.initrd.as_path().to_owned(),
            kernel_params: words(config.text("hypervisor.qemu.kernel_params")),
            ports: ports(config)?,
            qemu: config.text("hypervisor.qemu.path").into(),
            vsock_program: guest_image::program(config.text("hypervisor.qemu.vsock_daemon")),
            sharing: sharing(config)?,
            passing: passing(config)?,
            boot: seconds(config, "agent.kata.dial_timeout")?,
            create: seconds(config, "runtime.create_container_timeout")?,
        })
    }

    /// The hypervisor that makes the machine.
    pub(crate) fn hypervisor(&self) -> Qemu {
        Qemu::new(QemuConfig {
            program: self.qemu.clone(),
            vsock_program: self.vsock_program.clone(),
            machine_type: machine_called(&self.machine_type).unwrap_or_default(),
            ..QemuConfig::default()
        })
    }

    /// The sandbox called `name`, whose files are below `dir`.
    pub(crate) fn sandbox(&self, name: &SandboxId, dir: HostPath) -> Result<SandboxSpec, Failure> {
        let path = |path: &Path| {
            HostPath::new(path).map_err(|error| Failure::step(format!("use {}", path.display()), error))
        };
        let mut machine = MachineSpec::new(name.clone(), path(&self.kernel)?, path(&self.initrd)?, dir);
        machine.vcpus = self.vcpus;
        machine.max_vcpus = self.max_vcpus;
        machine.memory = self.memory;
        if self.max_memory > self.memory {
            machine.memory_growth = MemoryGrowth::Dimms { most: self.max_memory };
        }
        machine.accelerator = self.accelerator;
        machine.kernel_params.clone_from(&self.kernel_params);
        machine.hotplug_ports = self.ports;
        let timing = Timing { boot: self.boot, create: self.create, ..Timing::default() };
        let (passing, sharing) = (self.passing.clone(), self.sharing.clone());
        Ok(SandboxSpec { hostname: "vc".into(), timing, passing, sharing, ..SandboxSpec::new(machine) })
    }
}

/// A machine by its name in QEMU.
fn machine_called(name: &str) -> Option<MachineType> {
    match name {
        "q35" => Some(MachineType::Q35),
        "pc" => Some(MachineType::I440fx),
        "microvm" => Some(MachineType::Microvm),
        _ => None,
    }
}

/// The usual number, and what the limit asks for.
fn vcpus(config: &Config, resources: Option<&LinuxResources>) -> Result<NonZeroU8, Failure> {
    let host = host_cpus();
    let usual = match config.number(VCPUS) {
        -1 => host.get().into(),
        number => number,
    };
    let usual = u8::try_from(usual).ok().and_then(NonZeroU8::new);
    let usual = usual
        .ok_or_else(|| config.invalid(VCPUS, "it should be 1 to 255, or -1 for as many as the host has"))?;
    let wanted = usual.saturating_add(limit_of_cpus(resources));
    // More than the host has gain nothing.
    Ok(wanted.min(host.max(usual)))
}

/// What a quota allows, in whole processors.
fn limit_of_cpus(resources: Option<&LinuxResources>) -> u8 {
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let quota = cpu.and_then(|cpu| cpu.quota()).and_then(|quota| u64::try_from(quota).ok()).unwrap_or(0);
    // The kernel's own period, where none is given.
    let period = cpu.and_then(|cpu| cpu.period()).filter(|period| *period > 0).unwrap_or(100_000);
    u8::try_from(quota.div_ceil(period)).unwrap_or(u8::MAX)
}

fn max_vcpus(config: &Config) -> Result<Option<NonZeroU8>, Failure> {
    match config.number(MAX_VCPUS) {
        -1 => Ok(Some(host_cpus())),
        number => {
            let number = u8::try_from(number);
            let wrong =
                |_| config.invalid(MAX_VCPUS, "it should be 0 to 255, or -1 for as many as the host has");
            Ok(NonZeroU8::new(number.map_err(wrong)?))
        }
    }
}

fn host_cpus() -> NonZeroU8 {
    let number = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u8::try_from(number).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX)
}

/// The usual size, and the limit.
fn memory(config: &Config, resources: Option<&LinuxResources>) -> Result<MiB, Failure> {
    let limit = resources.and_then(|resources| resources.memory().as_ref()?.limit());
    let limit = limit
        .filter(|limit| *limit > 0)
        .map_or(0, |bytes| bytes / (1 << 20) + i64::from(bytes % (1 << 20) > 0));
    let size = size(config, MEMORY, config.number(MEMORY).saturating_add(limit))?;
    size.ok_or_else(|| config.invalid(MEMORY, "it should be a number of MiB, at least 1"))
}

fn size(config: &Config, key: &str, mib: i64) -> Result<Option<MiB>, Failure> {
    let mib = u32::try_from(mib).map_err(|_| config.invalid(key, "it is out of range; it counts MiB"))?;
    Ok(MiB::new(mib))
}

fn ports(config: &Config) -> Result<u8, Failure> {
    let key = "hypervisor.qemu.pcie_root_port";
    u8::try_from(config.number(key)).map_err(|_| config.invalid(key, "it should be 0 to 255"))
}

/// How directories may be shared with a machine.
pub(crate) fn sharing(config: &Config) -> Result<Sharing, Failure> {
    let key = "hypervisor.qemu.shared_fs";
    let shared_fs = config.text(key).parse().map_err(|error| config.invalid(key, error))?;
    let program = Some(config.text("hypervisor.qemu.virtio_fs_daemon")).filter(|name| !name.is_empty());
    Ok(Sharing { shared_fs, program: program.map(guest_image::program) })
}

fn passing(config: &Config) -> Result<Passing, Failure> {
    let (port, mode) = ("hypervisor.qemu.hot_plug_vfio", "runtime.vfio_mode");
    let hot_plug = Port::parse_setting(config.text(port)).map_err(|error| config.invalid(port, error))?;
    if hot_plug.is_some_and(|hot_plug| hot_plug != Port::RootPort) {
        return Err(config.invalid(port, "the machine has root ports only"));
    }
    let mode = config.text(mode).parse::<VfioMode>().map_err(|error| config.invalid(mode, error))?;
    Ok(Passing { policy: VfioPolicy { cold_plug: None, hot_plug, mode }, ..Passing::default() })
}

fn seconds(config: &Config, key: &str) -> Result<Duration, Failure> {
    let seconds = u32::try_from(config.number(key)).ok().filter(|seconds| *seconds > 0);
    let seconds =
        seconds.ok_or_else(|| config.invalid(key, "it should be a number of seconds, at least 1"))?;
    Ok(Duration::from_secs(seconds.into()))
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: serde_json::Value) -> LinuxResources {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_quota_is_whole_processors() {
        let cpus = |json| limit_of_cpus(Some(&resources(json)));
        assert_eq!(cpus(serde_json::json!({"cpu": {"quota": 50_000, "period": 100_000}})), 1);
        assert_eq!(cpus(serde_json::json!({"cpu": {"quota": 250_000, "period": 100_000}})), 3);
        assert_eq!(cpus(serde_json::json!({"cpu": {"quota": 100_001}})), 2);
        assert_eq!(cpus(serde_json::json!({"cpu": {"quota": -1}})), 0);
        assert_eq!(cpus(serde_json::json!({"cpu": {"quota": i64::MAX, "period": 1}})), 255);
        assert_eq!(limit_of_cpus(None), 0);
    }

    #[test]
    fn a_limit_of_memory_comes_on_top() {
        let config = Config::defaults();
        let memory = |limit: i64| {
            let resources = resources(serde_json::json!({"memory": {"limit": limit}}));
            memory(&config, Some(&resources)).map(MiB::get).map_err(|failure| failure.line())
        };
        assert_eq!(memory(64 << 20), Ok(320));
        assert_eq!(memory((64 << 20) + 1), Ok(321));
        assert_eq!(memory(-1), Ok(256));
        assert!(memory(i64::MAX).unwrap_err().contains("out of range"));
    }
}
