//! QEMU's command line, as a pure function of what is wanted. Source: qemu-system(1).

use std::ffi::OsString;
use std::os::fd::RawFd;

use vc_device::RootPorts;
use vc_hypervisor::MachineSpec;
use vc_types::VsockPort;

use crate::accelerator::Chosen;
use crate::vsock::Transport;

/// Where QEMU finds the QMP stream.
pub(crate) const QMP_FD: RawFd = 3;
/// Where QEMU finds the other end of the guest's console.
pub(crate) const CONSOLE_FD: RawFd = 4;
/// Where QEMU finds the kernel's vhost-vsock, if that is the transport.
pub(crate) const VHOST_FD: RawFd = 5;

/// The device number of the vsock device on the root bus; root ports begin at 8.
const VSOCK_DEVICE: u8 = 2;

/// The whole command line behind the program's name.
pub(crate) fn command_line(
    spec: &MachineSpec,
    accelerator: Chosen,
    transport: &Transport,
    ports: &RootPorts,
) -> Vec<OsString> {
    let mut args = Args::default();
    machine(&mut args, spec, accelerator);
    isolation(&mut args);
    boot(&mut args, spec, transport);
    control(&mut args);
    vsock(&mut args, transport);
    for port in ports.all() {
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

fn machine(args: &mut Args, spec: &MachineSpec, accelerator: Chosen) {
    let (accel, cpu) = match accelerator {
        Chosen::Kvm => ("kvm", "host"),
        Chosen::Tcg => ("tcg", "max"),
    };
    let size = spec.memory;
    args.pair("-name", format!("vc-{}", spec.id));
    args.pair("-M", format!("q35,accel={accel},memory-backend=mem"));
    args.pair("-cpu", cpu);
    args.pair("-smp", spec.vcpus.to_string());
    args.pair("-m", size.to_string());
    // Shared, since vhost-user devices read and write the guest's memory themselves.
    args.pair("-object", format!("memory-backend-memfd,id=mem,size={size},share=on"));
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
    args.pair("-bios", "qboot.rom");
    args.pair("-kernel", spec.kernel.as_path());
    args.pair("-initrd", spec.initrd.as_path());
    // Self-tests of the kernel's ciphers cost 240 ms of a 1.5 s boot.
    let mut params = vec!["console=ttyS0", "panic=-1", "quiet", "cryptomgr.notests"];
    // The daemon can be spoken to too early, so the agent says when.
    let announce = format!("agent.ready_vport={}", VsockPort::READY.0);
    params.extend(matches!(transport, Transport::Daemon { .. }).then_some(announce.as_str()));
    params.extend(spec.kernel_params.iter().map(String::as_str));
    args.pair("-append", params.join(" "));
}

fn control(args: &mut Args) {
    args.pair("-chardev", format!("socket,id=qmp,fd={QMP_FD}"));
    args.pair("-mon", "chardev=qmp,mode=control");
    args.pair("-chardev", format!("socket,id=console,fd={CONSOLE_FD}"));
    args.pair("-serial", "chardev:console");
}

fn vsock(args: &mut Args, transport: &Transport) {
    let place = format!("bus=pcie.0,addr={VSOCK_DEVICE:#x}");
    match transport {
        Transport::Kernel { cid } => {
            args.pair("-device", format!("vhost-vsock-pci,guest-cid={},vhostfd={VHOST_FD},{place}", cid.0));
        }
        Transport::Daemon { control, .. } => {
            let mut chardev = OsString::from("socket,id=vsock,path=");
            chardev.push(control.as_path());
            args.pair("-chardev", chardev);
            args.pair("-device", format!("vhost-user-vsock-pci,chardev=vsock,{place}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU8;
    use vc_hypervisor::Accelerator;
    use vc_types::{HostPath, MiB, VsockCid};

    fn spec() -> MachineSpec {
        MachineSpec {
            id: "web".parse().unwrap(),
            vcpus: NonZeroU8::new(2).unwrap(),
            memory: MiB::new(256).unwrap(),
            accelerator: Accelerator::Auto,
            kernel: HostPath::new("/g/vmlinux").unwrap(),
            initrd: HostPath::new("/g/initrd").unwrap(),
            kernel_params: vec!["agent.log=debug".into()],
            hotplug_ports: 9,
            runtime_dir: HostPath::new("/run/vc/web").unwrap(),
        }
    }

    fn lines(accelerator: Chosen, transport: &Transport) -> String {
        let ports = RootPorts::new(9).unwrap();
        let args = command_line(&spec(), accelerator, transport, &ports);
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
}
