//! ExecProcess: one more process in a running container.

use super::create::launch;
use super::{Container, MAX_PROCESSES, Stage};
use crate::error::CallError;
use crate::executor::{Task, state_directory};
use crate::guest::parse_id;
use crate::spec::exec_process;
use oci_spec::runtime::Process;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use vc_agent_protocol::oci;

impl Container {
    /// Starts `process` under the name `exec`.
    pub(crate) async fn exec(&self, exec: &str, process: &oci::Process) -> Result<(), CallError> {
        parse_id(exec)?;
        let process = exec_process(process)?;
        let terminal = process.terminal().unwrap_or(false);
        let started = {
            // Held while libcontainer is at work, so that removing the container waits for it.
            let _launching = self.launching.read().await;
            self.launch_exec(exec, &process, terminal).await
        };
        self.remove_leftovers();
        started
    }

    async fn launch_exec(&self, exec: &str, process: &Process, terminal: bool) -> Result<(), CallError> {
        if *self.stage() != Stage::Running {
            return Err(CallError::State { container: self.id.to_string(), action: "joined by a process" });
        }
        let text = serde_json::to_vec(process).expect("a process of UTF-8 texts is JSON");
        let file = self.write_process(exec, &text)?;
        self.check_free(exec)?;
        let task = |console| Task::Exec { id: self.id.to_string(), process: file.0.clone(), console };
        let launched = launch(&self.launcher, task, terminal, &self.bundle).await?;
        let process = launched.into_process(exec.to_owned(), false, &self.launcher);
        self.processes().insert(exec.to_owned(), process.into());
        Ok(())
    }

    /// Writes the process for the executor. While the file is there, the name is taken.
    fn write_process(&self, exec: &str, text: &[u8]) -> Result<ProcessFile, CallError> {
        let path = self.bundle.join(format!("exec-{exec}.json"));
        let mut file = std::fs::File::create_new(&path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => CallError::ProcessExists(exec.to_owned()),
            _ => CallError::File(path.clone(), error),
        })?;
        let guard = ProcessFile(path);
        file.write_all(text).map_err(|error| CallError::File(guard.0.clone(), error))?;
        Ok(guard)
    }

    /// libcontainer leaves the sockets of an exec in its directory; they can go when no exec is at work.
    fn remove_leftovers(&self) {
        let Ok(_alone) = self.launching.try_write() else { return };
        let entries = std::fs::read_dir(state_directory(self.id.as_str())).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tenant-")) {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(path = ?entry.path(), %error, "cannot remove");
            }
        }
    }

    fn check_free(&self, exec: &str) -> Result<(), CallError> {
        let processes = self.processes();
        if processes.contains_key(exec) {
            return Err(CallError::ProcessExists(exec.to_owned()));
        }
        if processes.len() >= MAX_PROCESSES {
            return Err(CallError::TooManyProcesses(self.id.to_string()));
        }
        Ok(())
    }
}

/// The description of a process, gone when dropped.
struct ProcessFile(PathBuf);

impl Drop for ProcessFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = ?self.0, %error, "gone with its container");
        }
    }
}
