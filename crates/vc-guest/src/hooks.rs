//! Hooks: those that every container of the sandbox has, and those that run when one has started or is gone.
//!
//! All others are run by the container executor while it makes the container.

use crate::program::{ProgramError, run};
use crate::reaper::Reaper;
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, HookBuilder, Hooks, Spec};
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a hook may take that has no timeout of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of what a hook writes is told, in bytes.
const MAX_OUTPUT: u64 = 1000;

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// No end of it is known.
    #[error("the {kind} hook {path:?} cannot be run")]
    Run {
        kind: &'static str,
        path: PathBuf,
        #[source]
        source: ProgramError,
    },
    /// It says so.
    #[error("the {kind} hook {path:?} ended with status {status}: {output}")]
    Status { kind: &'static str, path: PathBuf, status: i32, output: String },
}

/// What the hooks of a container are told (`runtime.md`, "State").
#[derive(Clone, Debug)]
pub(crate) struct ContainerState {
    pub(crate) version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: HashMap<String, String>,
}

impl ContainerState {
    /// The state as JSON; a container that is gone has no process.
    fn text(&self, init: Option<Pid>) -> Vec<u8> {
        let mut state = json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": if init.is_some() { "running" } else { "stopped" },
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if let Some(init) = init {
            state["pid"] = init.as_raw().into();
        }
        state.to_string().into_bytes()
    }
}

/// The hooks that run after a container's start and end.
#[derive(Clone, Debug)]
pub(crate) struct LateHooks {
    state: ContainerState,
    after_start: Vec<Hook>,
    after_stop: Vec<Hook>,
}

impl LateHooks {
    /// Those of `spec`, whose container is called `id` and has its files in `bundle`.
    pub(crate) fn of(spec: &Spec, id: &str, bundle: &Path) -> Self {
        let list = |hooks: fn(&Hooks) -> &Option<Vec<Hook>>| {
            spec.hooks().as_ref().and_then(|all| hooks(all).clone()).unwrap_or_default()
        };
        let state = ContainerState {
            version: spec.version().clone(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        };
        Self { state, after_start: list(Hooks::poststart), after_stop: list(Hooks::poststop) }
    }

    /// Runs those for a container whose process has been started; the first that fails is the last.
    pub(crate) async fn started(&self, reaper: &Reaper, init: Pid) -> Result<(), HookError> {
        for hook in &self.after_start {
            run_hook(reaper, "poststart", hook, &self.state.text(Some(init))).await?;
        }
        Ok(())
    }

    /// Runs those for a container that is gone. One that fails changes nothing about that, and the next
    /// ones run (`runtime.md`, "Lifecycle").
    pub(crate) async fn stopped(&self, reaper: &Reaper) {
        for hook in &self.after_stop {
            if let Err(error) = run_hook(reaper, "poststop", hook, &self.state.text(None)).await {
                tracing::warn!(container = %self.state.id, error = crate::log::chain(&error), "a hook failed");
            }
        }
    }
}

async fn run_hook(reaper: &Reaper, kind: &'static str, hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let path = hook.path().clone();
    let mut command = Command::new(&path);
    command.env_clear();
    if let Some((name, arguments)) = hook.args().as_ref().and_then(|arguments| arguments.split_first()) {
        command.arg0(name).args(arguments);
    }
    command.envs(hook.env().iter().flatten().filter_map(|entry| entry.split_once('=')));
    let timeout = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let patience = timeout.map_or(PATIENCE, Duration::from_secs);
    let outcome = run(reaper, &mut command, state, MAX_OUTPUT, patience).await;
    let outcome = outcome.map_err(|source| HookError::Run { kind, path: path.clone(), source })?;
    if outcome.status == 0 {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&outcome.stderr).trim_end().to_owned();
    Err(HookError::Status { kind, path, status: outcome.status, output })
}

/// The hooks of the guest image: the programs in `prestart`, `poststart` and `poststop` below `directory`, by
/// name. Each is given its name and its kind as arguments, as Kata's agent does.
pub(crate) fn find(directory: &Path) -> Hooks {
    let list = |kind: &str| Some(programs(&directory.join(kind), kind)).filter(|hooks| !hooks.is_empty());
    let mut hooks = Hooks::default();
    hooks.set_prestart(list("prestart")).set_poststart(list("poststart")).set_poststop(list("poststop"));
    hooks
}

fn programs(directory: &Path, kind: &str) -> Vec<Hook> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_program).collect();
    paths.sort();
    let hook = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        HookBuilder::default().path(path).args([name, kind.to_owned()]).build().ok()
    };
    paths.into_iter().filter_map(hook).collect()
}

/// Has `spec` run the hooks of `more` as well, after its own.
pub(crate) fn add(spec: &mut Spec, more: &Hooks) {
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let both = |own: &Option<Vec<Hook>>, more: &Option<Vec<Hook>>| {
        let all: Vec<Hook> = own.iter().chain(more).flatten().cloned().collect();
        Some(all).filter(|all| !all.is_empty())
    };
    let prestart = both(hooks.prestart(), more.prestart());
    let poststart = both(hooks.poststart(), more.poststart());
    let poststop = both(hooks.poststop(), more.poststop());
    hooks.set_prestart(prestart).set_poststart(poststart).set_poststop(poststop);
    if hooks != Hooks::default() {
        spec.set_hooks(Some(hooks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(hooks: &Option<Vec<Hook>>) -> Vec<&str> {
        hooks.iter().flatten().filter_map(|hook| hook.path().to_str()).collect()
    }

    #[test]
    fn programs_of_the_image_are_hooks_and_follow_those_of_the_container() {
        let image = tempfile::tempdir().unwrap();
        let directory = image.path().join("prestart");
        std::fs::create_dir(&directory).unwrap();
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o755), ("readme", 0o644)] {
            std::fs::write(directory.join(name), "").unwrap();
            std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(directory.join("directory")).unwrap();
        let found = find(image.path());
        let [first, second] = ["10-a", "20-b"].map(|name| directory.join(name).display().to_string());
        assert_eq!(paths(found.prestart()), [&first, &second]);
        assert_eq!(
            found.prestart().as_ref().unwrap()[0].args(),
            &Some(vec!["10-a".into(), "prestart".into()])
        );
        assert_eq!((found.poststart(), found.poststop()), (&None, &None));

        let mut spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.2.0", "hooks": {"prestart": [{"path": "/own"}], "poststop": [{"path": "/last"}]},
        }))
        .unwrap();
        add(&mut spec, &found);
        let hooks = spec.hooks().as_ref().unwrap();
        assert_eq!(paths(hooks.prestart()), ["/own", &first, &second]);
        assert_eq!(paths(hooks.poststop()), ["/last"]);
        assert_eq!(find(Path::new("/absent")), Hooks::default());
    }

    #[test]
    fn a_container_that_is_gone_has_no_process() {
        let state = ContainerState {
            version: "1.2.0".into(),
            id: "box".into(),
            bundle: "/bundle".into(),
            annotations: HashMap::from([("key".into(), "value".into())]),
        };
        let text = |init| serde_json::from_slice::<serde_json::Value>(&state.text(init)).unwrap();
        let running = text(Some(Pid::from_raw(7)));
        assert_eq!((&running["status"], &running["pid"]), (&json!("running"), &json!(7)));
        let stopped = text(None);
        assert_eq!((&stopped["status"], stopped.get("pid")), (&json!("stopped"), None));
        assert_eq!(stopped["annotations"]["key"], "value");
    }
}
