//! QEMU's command line, as a pure function of what is wanted. Source: qemu-system(1).

use std::ffi::OsString;
use std::os::fd::RawFd;

use vc_device::{BridgeSlot, Capacity, RootPorts, ScsiUnit};
use vc_hypervisor::{MachineSpec, MemoryGrowth};
use vc_types::{MiB, VsockPort};

use crate::accelerator::Chosen;
use crate::config::MachineType;
use crate::vsock::Transport;

/// Where QEMU finds the QMP stream.
pub(crate) const QMP_FD: RawFd = 3;
/// Where QEMU finds the other end of the guest's console.
pub(crate) const CONSOLE_FD: RawFd = 4;
/// Where QEMU finds the other end of the vsock device: the kernel's vhost-vsock, or the daemon.
pub(crate) const VSOCK_FD: RawFd = 5;
/// Where QEMU finds the guest's kernel.
pub(crate) const KERNEL_FD: RawFd = 6;
/// Where QEMU finds the guest's initial RAM disk.
pub(crate) const INITRD_FD: RawFd = 7;

/// How many DIMMs a machine takes; each is a slot in its ACPI tables (QEMU allows 256).
const DIMM_SLOTS: u32 = 32;

/// The name of the virtio-mem device.
pub(crate) const VIRTIO_MEM: &str = "virtio-mem";

/// The device number of the vsock device on the root bus; root ports begin at 8.
const VSOCK_DEVICE: u8 = 2;

/// The device number of the virtio-mem device on the root bus.
const VIRTIO_MEM_DEVICE: u8 = 5;

/// The whole command line behind the program's name.
pub(crate) fn command_line(
    spec: &MachineSpec,
    machine_type: MachineType,
    accelerator: Chosen,
    transport: &Transport,
    capacity: Capacity,
) -> Vec<OsString> {
    let mut args = Args::default();
    machine(&mut args, spec, machine_type, accelerator);
    memory(&mut args, spec);
    isolation(&mut args);
    boot(&mut args, spec, transport);
    control(&mut args, spec.outlives_owner);
    if spec.starts_paused {
        args.flag("-S");
    }
    vsock(&mut args, machine_type, transport);
    // Of use once there are more disks than ports; costs nothing until then.
    if capacity.scsi_controller {
        let (name, slot) = (ScsiUnit::CONTROLLER, ScsiUnit::controller_slot().device());
        args.pair("-device", format!("virtio-scsi-pci,id={name},bus=pcie.0,addr={slot:#x}"));
    }
    for number in 0..capacity.bridges {
        let (name, slot) = (BridgeSlot::name_of_bridge(number), BridgeSlot::slot_of_bridge(number));
        // Its own hot-plug controller would wait five seconds before each unplug; ACPI does without.
        let place = slot.map(|slot| format!("addr={:#x}", slot.device())).unwrap_or_default();
        // Without a reserve the firmware gives a bridge that is empty at boot no addresses to hand on.
        let reserve = "io-reserve=4k,mem-reserve=1m,pref64-reserve=1m";
        let label = format!("chassis_nr={},shpc=off,{reserve}", u16::from(number) + 200);
        args.pair("-device", format!("pci-bridge,id={name},bus=pcie.0,{place},{label}"));
    }
    for port in RootPorts::new(capacity.root_ports).iter().flat_map(RootPorts::all) {
        let (name, slot) = (port.name(), port.slot());
        let place = format!("addr={:#x}.{},multifunction=on", slot.device(), slot.function());
        // chassis and slot only have to be unique; guests see them as labels.
        let label = format!("chassis={},slot={}", u16::from(port.index()) + 1, port.index());
        args.pair("-device", format!("pcie-root-port,id={name},bus=pcie.0,{place},{label}"));
    }
    args.0
}

#[derive(Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.extend([option.into(), value.into()]);
    }
}

fn machine(args: &mut Args, spec: &MachineSpec, machine_type: MachineType, accelerator: Chosen) {
    let (accel, cpu) = match accelerator {
        Chosen::Kvm => ("kvm", "host"),
        // Told of fast string instructions, the guest's kernel and C library copy and clear by them, which are
        // emulated byte by byte.
        Chosen::Tcg => ("tcg", "max,-erms,-fsrm"),
    };
    let (vcpus, most) = (spec.vcpus, spec.max_vcpus.max(spec.vcpus));
    args.pair("-name", format!("vc-{}", spec.id));
    let nvdimm = if spec.pmem_room.is_some() { ",nvdimm=on" } else { "" };
    args.pair("-M", format!("{},accel={accel},memory-backend=mem{nvdimm}", machine_type.name()));
    args.pair("-cpu", cpu);
    // A socket for each, since that is how they are plugged.
    let growth = if most > vcpus {
        format!(",maxcpus={most},sockets={most},cores=1,threads=1")
    } else {
        String::new()
    };
    args.pair("-smp", format!("{vcpus}{growth}"));
}

fn memory(args: &mut Args, spec: &MachineSpec) {
    let size = spec.memory;
    let (slots, most) = match spec.memory_growth {
        MemoryGrowth::None => (false, size),
        MemoryGrowth::Dimms { most } => (true, most.max(size)),
        MemoryGrowth::VirtioMem { most } => (false, most.max(size)),
    };
    let (slots, most) = match spec.pmem_room {
        Some(room) => (true, most.get().checked_add(room.get()).and_then(MiB::new).unwrap_or(most)),
        None => (slots, most),
    };
    let slots = if slots { format!(",slots={DIMM_SLOTS}") } else { String::new() };
    let most = if most > size { format!(",maxmem={most}") } else { String::new() };
    args.pair("-m", format!("{size}{slots}{most}"));
    // Shared, since vhost-user devices read and write the guest's memory themselves.
    args.pair("-object", format!("memory-backend-memfd,id=mem,size={size},share=on"));
    if let MemoryGrowth::VirtioMem { most } = spec.memory_growth
        && let Some(room) = MiB::new(most.get().saturating_sub(size.get()))
    {
        args.pair(
            "-object",
            format!("memory-backend-memfd,id={VIRTIO_MEM}-backend,size={room},share=on,reserve=off"),
        );
        let place = format!("bus=pcie.0,addr={VIRTIO_MEM_DEVICE:#x}");
        args.pair(
            "-device",
            format!("virtio-mem-pci,id={VIRTIO_MEM},memdev={VIRTIO_MEM}-backend,requested-size=0,{place}"),
        );
    }
}

/// Nothing that was not asked for, and no way out of the process.
fn isolation(args: &mut Args) {
    args.flag("-nodefaults");
    args.flag("-no-user-config");
    args.pair("-display", "none");
    args.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
}

fn boot(args: &mut Args, spec: &MachineSpec, transport: &Transport) {
    // A panic then ends the machine instead of booting it again.
    args.flag("-no-reboot");
    if is_quick(spec) {
        args.pair("-bios", "qboot.rom");
    }
    // QEMU opens them once more; the way there may be closed to its user.
    args.pair("-kernel", format!("/proc/self/fd/{KERNEL_FD}"));
    args.pair("-initrd", format!("/proc/self/fd/{INITRD_FD}"));
    // Self-tests of the kernel's ciphers cost 240 ms of a 1.5 s boot.
    let mut params = vec!["console=ttyS0", "panic=-1", "quiet", "cryptomgr.notests"];
    // The daemon can be spoken to too early, so the agent says when.
    let announce = format!("agent.ready_vport={}", VsockPort::READY.0);
    params.extend(matches!(transport, Transport::Daemon { .. }).then_some(announce.as_str()));
    // Memory that comes is used at once, and in a way that lets it go again.
    let grows = spec.memory_growth != MemoryGrowth::None;
    params.extend(grows.then_some("memhp_default_state=online_movable"));
    params.extend(spec.kernel_params.iter().map(String::as_str));
    args.pair("-append", params.join(" "));
}

/// Whether qboot will do, which is faster than SeaBIOS.
///
/// It gives the devices behind a conventional bridge no addresses. And it tells by the first bytes of the kernel's file
/// how to boot it, which QEMU offers from a place on its stack that it has left long ago (`hw/i386/elfboot: allocate
/// "header" in heap`, November 2024). A device of the host that is plugged before they were read overwrites them: two of
/// them in most runs, and qboot then clears the kernel out of the memory and goes on within zeros, for ever.
fn is_quick(spec: &MachineSpec) -> bool {
    spec.pci_bridges == 0 && !spec.starts_paused
}

/// QEMU listens where somebody else may have to connect one day, and has the one connection otherwise.
fn control(args: &mut Args, listens: bool) {
    let listens = if listens { ",server=on,wait=off" } else { "" };
    args.pair("-chardev", format!("socket,id=qmp,fd={QMP_FD}{listens}"));
    args.pair("-mon", "chardev=qmp,mode=control");
    args.pair("-chardev", format!("socket,id=console,fd={CONSOLE_FD}{listens}"));
    args.pair("-serial", "chardev:console");
}

fn vsock(args: &mut Args, machine_type: MachineType, transport: &Transport) {
    let place = format!("bus={},addr={VSOCK_DEVICE:#x}", machine_type.root_bus());
    match transport {
        Transport::Kernel { cid } => {
            args.pair("-device", format!("vhost-vsock-pci,guest-cid={},vhostfd={VSOCK_FD},{place}", cid.0));
        }
        Transport::Daemon { .. } => {
            args.pair("-chardev", format!("socket,id=vsock,fd={VSOCK_FD}"));
            args.pair("-device", format!("vhost-user-vsock-pci,chardev=vsock,{place}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU8;
    use vc_types::{HostPath, MiB, VsockCid};

    fn spec() -> MachineSpec {
        let path = |path| HostPath::new(path).unwrap();
        let dir = path("/run/vc/web");
        let mut spec = MachineSpec::new("web".parse().unwrap(), path("/g/vmlinux"), path("/g/initrd"), dir);
        spec.vcpus = NonZeroU8::new(2).unwrap();
        spec.kernel_params = vec!["agent.log=debug".into()];
        spec.hotplug_ports = 9;
        spec
    }

    fn lines(accelerator: Chosen, transport: &Transport) -> String {
        lines_of(&spec(), MachineType::Q35, accelerator, transport)
    }

    fn lines_of(
        spec: &MachineSpec,
        machine: MachineType,
        accelerator: Chosen,
        transport: &Transport,
    ) -> String {
        let args = command_line(spec, machine, accelerator, transport, machine.capacity(spec));
        let text: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        text.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn the_command_line_of_an_emulated_machine() {
        let transport = Transport::Daemon {
            control: HostPath::new("/run/vc/web/vsock.sock").unwrap(),
            agent: HostPath::new("/run/vc/web/agent.sock").unwrap(),
        };
        let golden = include_str!("../tests/golden/tcg-daemon.txt");
        assert_eq!(lines(Chosen::Tcg, &transport), golden.trim_end());
    }

    #[test]
    fn the_command_line_of_a_kvm_machine_with_the_kernels_vsock() {
        let golden = include_str!("../tests/golden/kvm-kernel.txt");
        assert_eq!(lines(Chosen::Kvm, &Transport::Kernel { cid: VsockCid(77) }), golden.trim_end());
    }

    #[test]
    fn the_command_line_of_a_machine_that_grows() {
        let mut spec = spec();
        spec.max_vcpus = NonZeroU8::new(4).unwrap();
        spec.hotplug_ports = 1;
        for (growth, golden) in [
            (
                MemoryGrowth::Dimms { most: MiB::new(1024).unwrap() },
                include_str!("../tests/golden/grows-dimms.txt"),
            ),
            (
                MemoryGrowth::VirtioMem { most: MiB::new(1024).unwrap() },
                include_str!("../tests/golden/grows-virtio-mem.txt"),
            ),
        ] {
            spec.memory_growth = growth;
            let kernel = Transport::Kernel { cid: VsockCid(77) };
            assert_eq!(lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel), golden.trim_end());
        }
    }

    #[test]
    fn the_command_line_of_a_machine_with_bridges_and_room_for_persistent_memory() {
        let mut spec = spec();
        spec.hotplug_ports = 1;
        spec.pci_bridges = 2;
        spec.pmem_room = MiB::new(64);
        let kernel = Transport::Kernel { cid: VsockCid(77) };
        let golden = include_str!("../tests/golden/bridges-pmem.txt");
        assert_eq!(lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel), golden.trim_end());
    }

    #[test]
    fn a_machine_that_outlives_its_owner_listens_for_the_next() {
        let mut spec = spec();
        let kernel = Transport::Kernel { cid: VsockCid(77) };
        let before = lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel);
        spec.outlives_owner = true;
        let after = lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel);
        let changed: Vec<_> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        assert_eq!(
            changed,
            [
                "-chardev socket,id=qmp,fd=3,server=on,wait=off",
                "-chardev socket,id=console,fd=4,server=on,wait=off",
            ]
        );
    }

    #[test]
    fn a_machine_that_starts_paused_has_firmware_that_bears_devices_before_it_runs() {
        let mut spec = spec();
        let kernel = Transport::Kernel { cid: VsockCid(77) };
        let before = lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel);
        spec.starts_paused = true;
        let after = lines_of(&spec, MachineType::Q35, Chosen::Kvm, &kernel);
        assert!(after.lines().any(|line| line == "-S"), "{after}");
        assert_eq!(after.replace("\n-S", ""), before.replace("\n-bios qboot.rom", ""));
    }

    #[test]
    fn the_command_line_of_a_conventional_machine() {
        let mut spec = spec();
        spec.hotplug_ports = 0;
        let kernel = Transport::Kernel { cid: VsockCid(77) };
        let golden = include_str!("../tests/golden/i440fx.txt");
        assert_eq!(lines_of(&spec, MachineType::I440fx, Chosen::Tcg, &kernel), golden.trim_end());
    }
}
