//! Hooks: the programs of the host that a specification has run at points of a container's life.
//!
//! Source: OCI runtime specification, config.md, "POSIX-platform Hooks". Those that run in the container's
//! namespaces (`createContainer`, `startContainer`) go to the guest with the rest of the specification.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks, Spec};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::failure::Failure;

/// How long a hook may take that sets no limit.
const USUAL: Duration = Duration::from_secs(60);

/// How much of what a hook says of its failure is told, in bytes.
const SAID: usize = 1024;

/// A point of a container's life at which hooks run on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before the start; deprecated, engines still use it.
    Prestart,
    /// During the creation.
    CreateRuntime,
    /// After the start.
    Poststart,
    /// After the deletion.
    Poststop,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            Self::Prestart => prestart(hooks),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

fn prestart(hooks: &Hooks) -> &Option<Vec<Hook>> {
    hooks.prestart()
}

/// The specification without the hooks that run on the host.
pub(crate) fn without_those_of_the_host(mut spec: Spec) -> Spec {
    let guest = spec.hooks().as_ref().map(|hooks| {
        let mut kept = Hooks::default();
        kept.set_create_container(hooks.create_container().clone());
        kept.set_start_container(hooks.start_container().clone());
        kept
    });
    let any = |hooks: &Hooks| {
        let lists = [hooks.create_container(), hooks.start_container()];
        lists.into_iter().flatten().any(|list| !list.is_empty())
    };
    spec.set_hooks(guest.filter(any));
    spec
}

/// Runs the hooks of `point` in their order, each with the container's state (JSON) as its input.
///
/// # Errors
/// When one cannot be run, fails, or takes too long; those behind it are not run.
pub(crate) async fn run(hooks: Option<&Hooks>, point: Point, state: &str) -> Result<(), Failure> {
    for hook in hooks.map(|hooks| point.of(hooks)).unwrap_or_default() {
        let step = format!("run the {} hook {}", point.name(), hook.path().display());
        run_one(hook, state).await.map_err(|why| Failure::message(format!("could not {step}: {why}")))?;
        tracing::debug!(hook = %hook.path().display(), point = point.name(), "a hook ran");
    }
    Ok(())
}

/// Runs all hooks of `point`, whatever becomes of each; failures are only logged.
pub(crate) async fn run_all(hooks: Option<&Hooks>, point: Point, state: &str) {
    for hook in hooks.map(|hooks| point.of(hooks)).unwrap_or_default() {
        if let Err(why) = run_one(hook, state).await {
            tracing::warn!(hook = %hook.path().display(), point = point.name(), why, "a hook failed");
        }
    }
}

async fn run_one(hook: &Hook, state: &str) -> Result<(), String> {
    if !hook.path().is_absolute() {
        return Err("the path of a hook must be absolute".into());
    }
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    let variables = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    command.env_clear().envs(variables);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut input = child.stdin.take().expect("it was piped");
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let limit = limit.filter(|seconds| *seconds > 0).map_or(USUAL, Duration::from_secs);
    let work = async {
        // A hook need not read it.
        let _ = input.write_all(state.as_bytes()).await;
        drop(input);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(limit, work).await;
    let output = output.map_err(|_| format!("it did not end within {limit:?}"))?;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = &output.stderr[output.stderr.len().saturating_sub(SAID)..];
    let said = String::from_utf8_lossy(said);
    let how = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("it exited with {code}"),
        (None, signal) => format!("signal {} ended it", signal.unwrap_or_default()),
    };
    Err(if said.trim().is_empty() { how } else { format!("{how}: {}", said.trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(script: &str, timeout: Option<i64>) -> Hooks {
        let hook = serde_json::json!({
            "path": "/bin/sh", "args": ["hook", "-c", script, "zero", "one"], "env": ["WHERE=host"], "timeout": timeout,
        });
        serde_json::from_value(serde_json::json!({"createRuntime": [hook]})).unwrap()
    }

    #[tokio::test]
    async fn a_hook_gets_its_arguments_its_environment_and_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        let script = format!("echo $1 $WHERE ${{HOME:-nothing else}} >{0}; /bin/cat >>{0}", file.display());
        let hooks = hooks(&script, None);
        run(Some(&hooks), Point::CreateRuntime, "{\"id\": \"x\"}").await.unwrap();
        run(Some(&hooks), Point::Poststop, "").await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "one host nothing else\n{\"id\": \"x\"}");
    }

    #[tokio::test]
    async fn a_hook_that_fails_or_hangs_is_named() {
        let failed = run(Some(&hooks("echo no >&2; exit 3", None)), Point::CreateRuntime, "").await;
        let said = failed.unwrap_err().for_engines();
        assert_eq!(said, "could not run the createRuntime hook /bin/sh: it exited with 3: no");
        let hung = run(Some(&hooks("exec /bin/sleep 600", Some(1))), Point::CreateRuntime, "").await;
        assert!(hung.unwrap_err().for_engines().contains("did not end within 1s"));
    }
}
