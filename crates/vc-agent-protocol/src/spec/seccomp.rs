//! Seccomp filters.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSyscall};

impl TryFrom<&LinuxSeccomp> for oci::LinuxSeccomp {
    type Error = ConvertError;

    fn try_from(seccomp: &LinuxSeccomp) -> Result<Self, ConvertError> {
        Ok(Self {
            default_action: value::name(seccomp.default_action()),
            architectures: seccomp.architectures().iter().flatten().map(value::name).collect(),
            flags: seccomp.flags().iter().flatten().map(value::name).collect(),
            syscalls: value::each(seccomp.syscalls().iter().flatten(), syscall_to_wire)?,
            ..Self::default()
        })
    }
}

impl TryFrom<&oci::LinuxSeccomp> for LinuxSeccomp {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxSeccomp) -> Result<Self, ConvertError> {
        let architecture = |name: &String| value::named("linux.seccomp.architectures", name);
        let flag = |name: &String| value::named("linux.seccomp.flags", name);
        let mut seccomp = Self::default();
        seccomp
            .set_default_action(value::named("linux.seccomp.defaultAction", &wire.default_action)?)
            .set_architectures(value::given(value::each(&wire.architectures, architecture)?))
            .set_flags(value::given(value::each(&wire.flags, flag)?))
            .set_syscalls(value::given(value::each(&wire.syscalls, syscall_from_wire)?));
        Ok(seccomp)
    }
}

fn syscall_to_wire(syscall: &LinuxSyscall) -> Result<oci::LinuxSyscall, ConvertError> {
    Ok(oci::LinuxSyscall {
        names: syscall.names().clone(),
        action: value::name(syscall.action()),
        errno_ret: syscall.errno_ret().unwrap_or_default(),
        args: value::each(syscall.args().iter().flatten(), argument_to_wire)?,
        ..oci::LinuxSyscall::default()
    })
}

fn syscall_from_wire(wire: &oci::LinuxSyscall) -> Result<LinuxSyscall, ConvertError> {
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(wire.names.clone())
        .set_action(value::named("linux.seccomp.syscalls.action", &wire.action)?)
        .set_errno_ret(value::given(wire.errno_ret))
        .set_args(value::given(value::each(&wire.args, argument_from_wire)?));
    Ok(syscall)
}

fn argument_to_wire(argument: &LinuxSeccompArg) -> Result<oci::LinuxSeccompArg, ConvertError> {
    Ok(oci::LinuxSeccompArg {
        index: value::number("linux.seccomp.syscalls.args.index", argument.index())?,
        value: argument.value(),
        value_two: argument.value_two().unwrap_or_default(),
        op: value::name(argument.op()),
        ..oci::LinuxSeccompArg::default()
    })
}

fn argument_from_wire(wire: &oci::LinuxSeccompArg) -> Result<LinuxSeccompArg, ConvertError> {
    let index: usize = value::number("linux.seccomp.syscalls.args.index", wire.index)?;
    let mut argument = LinuxSeccompArgBuilder::default().index(index).value(wire.value).op(value::named::<
        oci_spec::runtime::LinuxSeccompOperator,
    >(
        "linux.seccomp.syscalls.args.op",
        &wire.op,
    )?);
    if let Some(second) = value::given(wire.value_two) {
        argument = argument.value_two(second);
    }
    Ok(argument.build().expect("no field of a filter's argument is required"))
}
