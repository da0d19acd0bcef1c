//! The OCI specification of the command: a bundle's, or a default one, with the options applied.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec, User};

use crate::cli::Run;
use crate::failure::Failure;

/// What a container may do as root when nothing else is said: what Podman and Docker allow.
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The specification that `options` ask for.
pub(crate) fn build(options: &Run) -> Result<Spec, Failure> {
    let mut spec = match &options.rootfs.bundle {
        Some(bundle) => load(bundle)?,
        None => default_spec(),
    };
    let mut process = spec.process().clone().unwrap_or_else(default_process);
    apply(&mut process, options)?;
    spec.set_process(Some(process));
    Ok(spec)
}

/// The specification of a bundle.
pub(crate) fn load(bundle: &Path) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    let step = format!("read the bundle's {}", path.display());
    Spec::load(&path).map_err(|error| Failure::step(step, error))
}

fn default_spec() -> Spec {
    let mut spec = Spec::default();
    spec.set_process(Some(default_process())).set_hostname(Some("vc".to_owned()));
    // A root of its own, which the layers make; it may be written to.
    spec.set_root(None);
    spec
}

/// A specification to start from: a shell at a terminal.
pub(crate) fn example() -> Spec {
    let mut process = default_process();
    process.set_args(Some(vec!["sh".to_owned()])).set_terminal(Some(true));
    let mut spec = default_spec();
    spec.set_process(Some(process)).set_root(Some(oci_spec::runtime::Root::default()));
    spec
}

/// A process without a command.
fn default_process() -> Process {
    let mut process = Process::default();
    let set: HashSet<Capability> = CAPABILITIES.into();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    process
        .set_args(None)
        .set_env(Some(vec![PATH.to_owned()]))
        .set_capabilities(Some(capabilities))
        .set_no_new_privileges(Some(false))
        .set_rlimits(None)
        .set_terminal(None);
    process
}

fn apply(process: &mut Process, options: &Run) -> Result<(), Failure> {
    if !options.command.is_empty() {
        process.set_args(Some(options.command.clone()));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::message(
            "no command: name one behind the options, or in the bundle's config.json",
        ));
    }
    let mut env = process.env().clone().unwrap_or_default();
    if options.tty {
        process.set_terminal(Some(true));
        set(&mut env, "TERM=xterm");
    }
    for variable in &options.env {
        set(&mut env, &variable.0);
    }
    process.set_env(Some(env));
    if let Some(dir) = &options.workdir {
        process.set_cwd(dir.clone());
    }
    if let Some(user) = options.user {
        let mut oci = User::default();
        oci.set_uid(user.uid).set_gid(user.gid);
        process.set_user(oci);
    }
    Ok(())
}

/// Adds a variable, or replaces the one of the same name.
fn set(env: &mut Vec<String>, variable: &str) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    env.retain(|known| name(known) != name(variable));
    env.push(variable.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn options(line: &[&str]) -> Run {
        let line = ["vc", "run"].iter().chain(line);
        let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!("run") };
        *run
    }

    #[test]
    fn options_win_over_defaults() {
        let line =
            ["-l", "x", "-t", "-e", "PATH=/x", "-e", "A=1", "-w", "/srv", "-u", "5:6", "--", "id", "-u"];
        let spec = build(&options(&line)).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["id", "-u"]);
        assert_eq!(process.env().as_ref().unwrap(), &["TERM=xterm", "PATH=/x", "A=1"]);
        assert_eq!(process.cwd(), Path::new("/srv"));
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.terminal(), Some(true));
    }

    #[test]
    fn a_bundle_brings_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let missing = build(&options(&["-b", dir.to_str().unwrap()]));
        let json = r#"{"ociVersion": "1.2.0", "root": {"path": "r"},
            "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}}"#;
        std::fs::write(dir.join("config.json"), json).unwrap();
        let spec = build(&options(&["-b", dir.to_str().unwrap()])).unwrap();
        assert!(missing.is_err());
        assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap(), &["true"]);
        assert!(build(&options(&["-l", "x"])).is_err(), "no command");
        std::fs::write(dir.join("config.json"), r#"{"ociVersion": "1.2.0"}"#).unwrap();
        assert!(build(&options(&["-b", dir.to_str().unwrap()])).is_err(), "no process and no command");
    }
}
