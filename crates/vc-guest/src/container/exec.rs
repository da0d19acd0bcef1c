//! ExecProcess: one more process in a running container.

use super::create::launch;
use super::{Container, MAX_PROCESSES, Stage};
use crate::error::CallError;
use crate::executor::Task;
use crate::guest::parse_id;
use crate::spec::exec_process;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use vc_agent_protocol::oci;

impl Container {
    /// Starts `process` under the name `exec`.
    pub(crate) async fn exec(&self, exec: &str, process: &oci::Process) -> Result<(), CallError> {
        parse_id(exec)?;
        let process = exec_process(process)?;
        let terminal = process.terminal().unwrap_or(false);
        if *self.stage() != Stage::Running {
            return Err(CallError::State { container: self.id.to_string(), action: "joined by a process" });
        }
        let text = serde_json::to_vec(&process).expect("a process of UTF-8 texts is JSON");
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
