//! What is in the guest, and what each call does to it.

use std::collections::{BTreeMap, HashMap};

use vc_types::{ContainerId, GuestPath, SandboxId};

use super::process::{Process, Program};
use crate::{AgentError, Call, CreateContainer, CreateSandbox, ProcessRef, Storage, StorageDriver};

/// What is left in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The sandbox, from its creation until it is destroyed.
    pub sandbox: Option<SandboxId>,
    /// The containers, by name.
    pub containers: Vec<ContainerId>,
    /// Where something is mounted, by path.
    pub mounts: Vec<GuestPath>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    sandbox: Option<CreateSandbox>,
    containers: BTreeMap<ContainerId, Container>,
    /// Mounts are counted by their mount point, as several containers may use one.
    mounts: BTreeMap<GuestPath, u32>,
    pub(super) programs: HashMap<String, Program>,
}

#[derive(Debug)]
struct Container {
    request: CreateContainer,
    started: bool,
    init: Process,
}

type Done<T = ()> = Result<T, AgentError>;

fn refused<T>(call: Call, detail: &str) -> Done<T> {
    Err(AgentError::Refused { call, detail: detail.to_owned() })
}

impl World {
    pub(super) fn left(&self) -> Left {
        Left {
            sandbox: self.sandbox.as_ref().map(|sandbox| sandbox.id.clone()),
            containers: self.containers.keys().cloned().collect(),
            mounts: self.mounts.keys().cloned().collect(),
        }
    }

    pub(super) fn create_sandbox(&mut self, request: &CreateSandbox) -> Done {
        if self.sandbox.is_some() {
            return refused(Call::CreateSandbox, "this sandbox was created already");
        }
        self.mount(Call::CreateSandbox, &request.storages)?;
        self.sandbox = Some(request.clone());
        Ok(())
    }

    pub(super) fn destroy_sandbox(&mut self) -> Done {
        if self.sandbox.take().is_none() {
            return refused(Call::DestroySandbox, "there is no sandbox");
        }
        self.containers.clear();
        self.mounts.clear();
        Ok(())
    }

    pub(super) fn create_container(&mut self, request: &CreateContainer) -> Done {
        let call = Call::CreateContainer;
        if self.sandbox.is_none() {
            return refused(call, "there is no sandbox");
        }
        if self.containers.contains_key(&request.id) {
            return Err(AgentError::ContainerExists { detail: request.id.to_string() });
        }
        self.mount(call, &request.storages)?;
        match self.process(request) {
            Ok(init) => {
                let container = Container { request: request.clone(), started: false, init };
                self.containers.insert(request.id.clone(), container);
                Ok(())
            }
            Err(error) => {
                self.unmount(&request.storages);
                Err(error)
            }
        }
    }

    fn process(&self, request: &CreateContainer) -> Done<Process> {
        let process = request.spec.process().as_ref();
        let command = process.and_then(|process| process.args().as_ref()).map(|args| args.join(" "));
        let Some(command) = command.filter(|command| !command.is_empty()) else {
            return refused(Call::CreateContainer, "the specification has no command");
        };
        let has_terminal = process.and_then(|process| process.terminal()).unwrap_or(false);
        match self.programs.get(&command).cloned().unwrap_or(Program::Waits) {
            Program::Missing => {
                Err(AgentError::ExecutableNotFound { detail: format!("{command:?}: not found") })
            }
            Program::NotExecutable => {
                Err(AgentError::NotExecutable { detail: format!("{command:?}: cannot be executed") })
            }
            program => Ok(Process::new(program, has_terminal)),
        }
    }

    pub(super) fn start_container(&mut self, id: &ContainerId) -> Done {
        let container = self.container(Call::StartContainer, id)?;
        if container.started {
            return refused(Call::StartContainer, "the container was started before");
        }
        if container.init.status.is_some() {
            return refused(Call::StartContainer, "the container's process has ended");
        }
        container.started = true;
        container.init.start();
        Ok(())
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId) -> Done {
        let call = Call::RemoveContainer;
        let gone = self.containers.remove(id);
        let gone = gone.ok_or_else(|| AgentError::NoSuchContainer { call, detail: id.to_string() })?;
        self.unmount(&gone.request.storages);
        Ok(())
    }

    /// The process as the streams see it: it is gone once its exit status was told.
    pub(super) fn with_streams(&mut self, call: Call, process: &ProcessRef) -> Done<&mut Process> {
        let found = self.find(call, process)?;
        if found.was_waited_for {
            return Err(AgentError::NoSuchProcess { call, detail: process.to_string() });
        }
        Ok(found)
    }

    pub(super) fn find(&mut self, call: Call, process: &ProcessRef) -> Done<&mut Process> {
        let container = self.container(call, &process.container)?;
        match process.exec {
            None => Ok(&mut container.init),
            Some(_) => Err(AgentError::NoSuchProcess { call, detail: process.to_string() }),
        }
    }

    fn container(&mut self, call: Call, id: &ContainerId) -> Done<&mut Container> {
        let container = self.containers.get_mut(id);
        container.ok_or_else(|| AgentError::NoSuchContainer { call, detail: id.to_string() })
    }

    /// Mounts all of `storages`, or none.
    fn mount(&mut self, call: Call, storages: &[Storage]) -> Done {
        for (index, storage) in storages.iter().enumerate() {
            if let Some(missing) = self.missing_layer(storage) {
                self.unmount(&storages[..index]);
                return refused(call, &format!("nothing is mounted at {missing}, a layer of an overlay"));
            }
            *self.mounts.entry(storage.mount_point.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// The first layer of an overlay that is not mounted.
    fn missing_layer<'s>(&self, storage: &'s Storage) -> Option<&'s str> {
        if storage.driver != StorageDriver::Overlay {
            return None;
        }
        let options = storage.options.iter().flat_map(|options| options.split(','));
        let mut layers =
            options.filter_map(|option| option.strip_prefix("lowerdir=")).flat_map(|dirs| dirs.split(':'));
        layers.find(|layer| !self.mounts.keys().any(|mount| is_at_or_below(layer, mount)))
    }

    fn unmount(&mut self, storages: &[Storage]) {
        for storage in storages.iter().rev() {
            if let Some(users) = self.mounts.get_mut(&storage.mount_point) {
                *users -= 1;
            }
            self.mounts.retain(|_, users| *users > 0);
        }
    }
}

fn is_at_or_below(path: &str, mount: &GuestPath) -> bool {
    path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
