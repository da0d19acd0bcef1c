//! CreateSandbox and DestroySandbox.

use crate::container;
use crate::error::CallError;
use crate::executor::Task;
use crate::guest::{Guest, Sandbox};
use crate::hooks;
use crate::log::chain;
use crate::reaper::wait;
use oci_spec::runtime::Hooks;
use std::path::Path;
use std::time::Duration;
use vc_agent_protocol::agent::{CreateSandboxRequest, KernelModule};
use vc_types::{Deadline, GuestPath};

/// How long the executor may take to make a pid namespace.
const NAMESPACE_WAIT: Duration = Duration::from_secs(30);

/// Sets the guest up for its sandbox: host name, name servers, modules, storages, shared pids.
pub(crate) async fn create(guest: &Guest, request: CreateSandboxRequest) -> Result<(), CallError> {
    take_sandbox(guest)?;
    let made = make(guest, &request).await;
    let (sandbox, result) = match made {
        Ok(sandbox) => (Some(sandbox), Ok(())),
        Err(error) => (None, Err(error)),
    };
    *guest.sandbox() = sandbox;
    result
}

/// Of two calls, also at the same time, the second is refused, and changes nothing.
fn take_sandbox(guest: &Guest) -> Result<(), CallError> {
    let mut sandbox = guest.sandbox();
    if sandbox.is_some() {
        return Err(CallError::SandboxExists);
    }
    *sandbox = Some(Sandbox::default());
    Ok(())
}

async fn make(guest: &Guest, request: &CreateSandboxRequest) -> Result<Sandbox, CallError> {
    guest.modules_loaded().await?;
    if !request.hostname.is_empty() {
        nix::unistd::sethostname(&request.hostname)
            .map_err(|errno| CallError::System("set the host name", errno))?;
    }
    write_name_servers(&request.dns)?;
    load_modules(guest, request.kernel_modules.clone()).await?;
    let mount_points = guest.storages().add("sandbox", &request.storages).await?;
    // Once the storages are there: the hooks may be on one of them.
    let hooks = find_hooks(&request.guest_hook_path);
    if !request.sandbox_pidns {
        return Ok(Sandbox { mount_points, pid_namespace: None, hooks });
    }
    let deadline = Deadline::after(NAMESPACE_WAIT);
    match guest.launcher().launch(&Task::PidNamespace, None, None, deadline).await {
        Ok(holder) => Ok(Sandbox { mount_points, pid_namespace: Some(holder), hooks }),
        Err(error) => {
            release(guest, mount_points).await;
            Err(error.into())
        }
    }
}

/// The hooks below the directory `path` of the guest, if there is one.
fn find_hooks(path: &str) -> Hooks {
    let found = if path.is_empty() { Hooks::default() } else { hooks::find(Path::new(path)) };
    if found == Hooks::default() && !path.is_empty() {
        tracing::warn!(path, "there is no hook");
    }
    found
}

/// Ends all containers, unmounts the sandbox's storages, and has the machine powered off once the
/// answer is on its way. Goes on after an error; the first one is the answer.
pub(crate) async fn destroy(guest: &Guest) -> Result<(), CallError> {
    let mut errors = Vec::new();
    for container in guest.all_containers() {
        errors.extend(container::remove(guest, container.id.as_str(), 0).await.err());
    }
    let sandbox = guest.sandbox().take().unwrap_or_default();
    if let Some((pid, mut exit)) = sandbox.pid_namespace
        && guest.reaper().signal(pid, libc::SIGKILL).is_ok()
    {
        wait(&mut exit).await;
    }
    // After the containers, and before what they may stand on.
    errors.extend(release_kept(guest).await);
    errors.extend(release(guest, sandbox.mount_points).await);
    // The host may end the machine as soon as it has the answer.
    let _ = tokio::task::spawn_blocking(nix::unistd::sync).await;
    guest.request_power_off();
    let mut errors = errors.into_iter();
    let first = errors.next();
    errors.for_each(|error| tracing::warn!(error = chain(&error), "the sandbox's end is not clean"));
    first.map_or(Ok(()), Err)
}

async fn release(guest: &Guest, mount_points: Vec<GuestPath>) -> Option<CallError> {
    let storages = guest.storages().clone();
    let released = tokio::task::spawn_blocking(move || storages.release(mount_points)).await;
    released.ok()?.into_iter().map(CallError::from).next()
}

async fn release_kept(guest: &Guest) -> Option<CallError> {
    let storages = guest.storages().clone();
    let released = tokio::task::spawn_blocking(move || storages.release_kept()).await;
    released.ok()?.into_iter().map(CallError::from).next()
}

/// Where the name servers stand: for the guest itself, and where containers find them to be bound.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/kata-containers/sandbox/resolv.conf"];

/// The host sends whole lines of resolv.conf(5).
fn write_name_servers(lines: &[String]) -> Result<(), CallError> {
    if lines.is_empty() {
        return Ok(());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for path in RESOLV_CONF.map(Path::new) {
        let directory = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = directory.and_then(|()| std::fs::write(path, &text));
        written.map_err(|error| CallError::File(path.into(), error))?;
    }
    Ok(())
}

async fn load_modules(guest: &Guest, modules: Vec<KernelModule>) -> Result<(), CallError> {
    let loader = guest.modules().clone();
    let loaded = tokio::task::spawn_blocking(move || {
        modules.iter().try_for_each(|module| loader.load(&module.name, &module.parameters.join(" ")))
    });
    Ok(loaded.await.map_err(|_| CallError::Panicked)??)
}
