//! `vc exec` and `vc ps`: another process in a container that runs.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process, User};
use serde_json::Value;

use super::attend::{Orders, attend};
use super::create::{absolute, check_terminal, leave_behind, write_pid};
use super::protocol::Ask;
use super::record::{Record, Status};
use super::root::Root;
use super::state::{Now, print};
use crate::cli::{Exec, ListFormat, Ps};
use crate::failure::Failure;
use crate::owner::Answer;
use crate::run::load_bundle;
use crate::sys;

/// Runs the process; its exit code, or 0 once it runs when it is left behind.
pub(crate) fn exec(root: &Root, options: &Exec) -> Result<u8, Failure> {
    sys::keep_descriptors().map_err(|error| Failure::step("keep open files from the process", error))?;
    if options.preserve_fds > 0 {
        return Err(Failure::message("open files cannot be passed into a machine; leave out --preserve-fds"));
    }
    let dir = root.get(&options.id)?;
    let now = Now::of(&dir)?;
    if now.status() == Status::Stopped {
        return Err(Failure::message(format!(
            "container {}: cannot exec in a stopped container",
            options.id
        )));
    }
    let process = match &options.process {
        Some(file) => read_process(file)?,
        None => build(options, &now.record)?,
    };
    let console_socket = options.console_socket.as_deref().map(absolute).transpose()?;
    if options.detach || console_socket.is_some() {
        check_terminal(process.terminal().unwrap_or(false), console_socket.as_deref())?;
    }
    let ask = Ask::Exec { process: Box::new(process) };
    let orders = Orders { dir: dir.path().to_owned(), ask, console_socket };
    if options.detach {
        return left_behind(options, &orders);
    }
    let pid = std::process::id();
    attend(&orders, || write_pid(options.pid_file.as_deref(), pid))
}

/// Runs the container's own ps; or tells what there is of it on the host, where whoever asks by JSON looks for it.
pub(crate) fn ps(root: &Root, options: &Ps) -> Result<u8, Failure> {
    let dir = root.get(&options.id)?;
    let now = Now::of(&dir)?;
    if options.format == ListFormat::Json {
        let pids: Vec<_> = now.record.pid.filter(|_| now.status() != Status::Stopped).into_iter().collect();
        return print(&format!("{}\n", serde_json::json!(pids))).map(|()| 0);
    }
    let mut process = base(&now.record)?;
    let command = std::iter::once("ps".to_owned()).chain(options.options.iter().cloned());
    process.set_args(Some(command.collect())).set_terminal(Some(false)).set_cwd("/".into());
    let ask = Ask::Exec { process: Box::new(process) };
    attend(&Orders { dir: dir.path().to_owned(), ask, console_socket: None }, || Ok(()))
}

fn left_behind(options: &Exec, orders: &Orders) -> Result<u8, Failure> {
    let failed = |error| Failure::step("start what stays with the process", error);
    let (mut child, answer) =
        leave_behind([super::ATTEND, options.id.as_str()], orders, Vec::new()).map_err(failed)?;
    match answer {
        Some(Answer::Created) => {
            let written = write_pid(options.pid_file.as_deref(), child.id());
            if written.is_err() {
                // The process ends with what stays with it, which may have ended by itself.
                let _ = child.kill();
            }
            written.map(|()| 0)
        }
        Some(Answer::Failed { code, message }) => Err(Failure::message(message).with_code(code)),
        None => Err(Failure::message("what stays with the process ended without a word")),
    }
}

fn read_process(file: &Path) -> Result<Process, Failure> {
    let step = || format!("read the process in {}", file.display());
    let json = fs::read(file).map_err(|error| Failure::step(step(), error))?;
    serde_json::from_slice(&json).map_err(|error| Failure::step(step(), error))
}

/// The container's own process, as its bundle has it.
fn base(record: &Record) -> Result<Process, Failure> {
    let spec = load_bundle(&record.bundle)?;
    spec.process().clone().ok_or_else(|| Failure::message("the container's config.json has no process"))
}

/// runc's rules: the container's own process, but for what the options say.
fn build(options: &Exec, record: &Record) -> Result<Process, Failure> {
    let mut process = base(record)?;
    process.set_args(Some(options.command.clone())).set_terminal(Some(options.tty));
    if let Some(dir) = &options.cwd {
        process.set_cwd(dir.clone());
    }
    if let Some(user) = options.user {
        let mut oci = User::default();
        oci.set_uid(user.uid).set_gid(user.gid);
        process.set_user(oci);
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().map(|variable| variable.0.clone()));
    process.set_env(Some(env));
    if !options.cap.is_empty() {
        let more = options.cap.iter().map(|name| capability(name)).collect::<Result<HashSet<_>, _>>()?;
        let capabilities = process.capabilities().clone().unwrap_or_default();
        process.set_capabilities(Some(with(capabilities, &more)));
    }
    Ok(process)
}

fn capability(name: &str) -> Result<Capability, Failure> {
    let known = serde_json::from_value(Value::String(name.to_ascii_uppercase()));
    known.map_err(|error| Failure::step(format!("use the capability {name}"), error))
}

fn with(mut capabilities: LinuxCapabilities, more: &HashSet<Capability>) -> LinuxCapabilities {
    let add = |set: &Option<HashSet<Capability>>| {
        Some(set.iter().flatten().chain(more).copied().collect::<HashSet<_>>())
    };
    let (bounding, effective) = (add(capabilities.bounding()), add(capabilities.effective()));
    let permitted = add(capabilities.permitted());
    capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    capabilities
}
