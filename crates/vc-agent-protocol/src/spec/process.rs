//! Processes: of a container's specification, and of an exec.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{
    Box as ConsoleSize, BoxBuilder, Capabilities, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, User,
};
use std::path::PathBuf;

impl TryFrom<&Process> for oci::Process {
    type Error = ConvertError;

    fn try_from(process: &Process) -> Result<Self, ConvertError> {
        let console_size = process.console_size().map(console_size_to_wire).transpose()?;
        Ok(Self {
            terminal: process.terminal().unwrap_or_default(),
            console_size: console_size.into(),
            user: Some(user_to_wire(process.user())).into(),
            args: process.args().clone().unwrap_or_default(),
            env: process.env().clone().unwrap_or_default(),
            cwd: value::text("process.cwd", process.cwd())?,
            capabilities: process.capabilities().as_ref().map(capabilities_to_wire).into(),
            rlimits: process.rlimits().iter().flatten().map(rlimit_to_wire).collect(),
            no_new_privileges: process.no_new_privileges().unwrap_or_default(),
            apparmor_profile: process.apparmor_profile().clone().unwrap_or_default(),
            oom_score_adj: process.oom_score_adj().unwrap_or_default().into(),
            selinux_label: process.selinux_label().clone().unwrap_or_default(),
            ..Self::default()
        })
    }
}

impl TryFrom<&oci::Process> for Process {
    type Error = ConvertError;

    fn try_from(wire: &oci::Process) -> Result<Self, ConvertError> {
        let mut process = Self::default();
        process
            .set_terminal(value::given(wire.terminal))
            .set_console_size(wire.console_size.as_ref().map(console_size_from_wire))
            .set_user(wire.user.as_ref().map(user_from_wire).unwrap_or_default())
            .set_args(value::given(wire.args.clone()))
            .set_env(value::given(wire.env.clone()))
            .set_cwd(PathBuf::from(&wire.cwd))
            .set_capabilities(wire.capabilities.as_ref().map(capabilities_from_wire).transpose()?)
            .set_rlimits(value::given(value::each(&wire.rlimits, rlimit_from_wire)?))
            .set_no_new_privileges(value::given(wire.no_new_privileges))
            .set_apparmor_profile(value::given(wire.apparmor_profile.clone()))
            .set_oom_score_adj(value::given_number("process.oomScoreAdj", wire.oom_score_adj)?)
            .set_selinux_label(value::given(wire.selinux_label.clone()));
        Ok(process)
    }
}

fn console_size_to_wire(size: ConsoleSize) -> Result<oci::Box, ConvertError> {
    Ok(oci::Box {
        height: value::number("process.consoleSize.height", size.height())?,
        width: value::number("process.consoleSize.width", size.width())?,
        ..oci::Box::default()
    })
}

fn console_size_from_wire(wire: &oci::Box) -> ConsoleSize {
    let size = BoxBuilder::default().height(wire.height).width(wire.width);
    size.build().expect("no field of a console size is required")
}

fn user_to_wire(user: &User) -> oci::User {
    oci::User {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        username: user.username().clone().unwrap_or_default(),
        ..oci::User::default()
    }
}

fn user_from_wire(wire: &oci::User) -> User {
    let mut user = User::default();
    user.set_uid(wire.uid)
        .set_gid(wire.gid)
        .set_additional_gids(value::given(wire.additional_gids.clone()))
        .set_username(value::given(wire.username.clone()));
    user
}

fn capabilities_to_wire(capabilities: &LinuxCapabilities) -> oci::LinuxCapabilities {
    let names = |set: &Option<Capabilities>| {
        let mut names: Vec<_> = set.iter().flatten().map(value::name).collect();
        names.sort();
        names
    };
    oci::LinuxCapabilities {
        bounding: names(capabilities.bounding()),
        effective: names(capabilities.effective()),
        inheritable: names(capabilities.inheritable()),
        permitted: names(capabilities.permitted()),
        ambient: names(capabilities.ambient()),
        ..oci::LinuxCapabilities::default()
    }
}

fn capabilities_from_wire(wire: &oci::LinuxCapabilities) -> Result<LinuxCapabilities, ConvertError> {
    let set = |field, names: &[String]| {
        names.iter().map(|name| value::named(field, name)).collect::<Result<Capabilities, _>>()
    };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set("process.capabilities.bounding", &wire.bounding)?))
        .set_effective(Some(set("process.capabilities.effective", &wire.effective)?))
        .set_inheritable(Some(set("process.capabilities.inheritable", &wire.inheritable)?))
        .set_permitted(Some(set("process.capabilities.permitted", &wire.permitted)?))
        .set_ambient(Some(set("process.capabilities.ambient", &wire.ambient)?));
    Ok(capabilities)
}

fn rlimit_to_wire(rlimit: &PosixRlimit) -> oci::POSIXRlimit {
    oci::POSIXRlimit {
        type_: value::name(rlimit.typ()),
        hard: rlimit.hard(),
        soft: rlimit.soft(),
        ..oci::POSIXRlimit::default()
    }
}

fn rlimit_from_wire(wire: &oci::POSIXRlimit) -> Result<PosixRlimit, ConvertError> {
    let typ: PosixRlimitType = value::named("process.rlimits.type", &wire.type_)?;
    let rlimit = PosixRlimitBuilder::default().typ(typ).hard(wire.hard).soft(wire.soft);
    Ok(rlimit.build().expect("no field of a limit is required"))
}
