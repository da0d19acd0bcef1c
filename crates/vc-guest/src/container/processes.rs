//! The processes of one container, by name.

use super::{Container, Process};
use crate::error::CallError;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The processes of one container that nobody waited for; more are refused.
const MAX_PROCESSES: usize = 1024;

/// Processes that run or whose end is not told yet, and the names of those being started.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: HashMap<String, Arc<Process>>,
    starting: HashSet<String>,
}

impl Processes {
    /// Those of a container that has only its first process.
    pub(super) fn starting_with(process: Process) -> Self {
        Self { known: HashMap::from([(process.id.clone(), process.into())]), starting: HashSet::new() }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Process>> {
        self.known.get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Process>> {
        self.known.values().cloned().collect()
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.known.remove(name);
    }

    fn has(&self, name: &str) -> bool {
        self.known.contains_key(name) || self.starting.contains(name)
    }
}

impl Container {
    /// Keeps `name` for a process that is being started.
    pub(super) fn reserve_process(&self, name: &str) -> Result<Reservation<'_>, CallError> {
        let mut processes = self.processes();
        if processes.has(name) {
            return Err(CallError::ProcessExists(name.to_owned()));
        }
        if processes.known.len() + processes.starting.len() >= MAX_PROCESSES {
            return Err(CallError::TooManyProcesses(self.id.to_string()));
        }
        processes.starting.insert(name.to_owned());
        Ok(Reservation { container: self, name: name.to_owned() })
    }
}

/// A name that is free again when this is dropped, unless a process took it.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    container: &'a Container,
    name: String,
}

impl Reservation<'_> {
    pub(super) fn fill(self, process: Process) {
        self.container.processes().known.insert(self.name.clone(), process.into());
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.container.processes().starting.remove(&self.name);
    }
}
