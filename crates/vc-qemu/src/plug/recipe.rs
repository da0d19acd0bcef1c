//! What a plug is made of: QMP commands in order, each with the command that takes it back.

use std::fs::File;
use std::sync::Arc;

use serde_json::{Value, json};
use vc_types::DeviceId;

/// A QMP command as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) arguments: Value,
    /// Its descriptor is sent along.
    pub(crate) file: Option<Arc<File>>,
}

impl Command {
    pub(crate) fn new(name: &'static str, arguments: Value) -> Self {
        Self { name, arguments, file: None }
    }
}

/// One step of a plug.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// For messages: could not …
    pub(crate) what: &'static str,
    pub(crate) command: Command,
    /// What takes it back; nothing for what does not last or goes with the device, and for the device itself.
    pub(crate) undo: Option<Command>,
    /// Whether it adds the device, which goes with the guest's consent.
    pub(crate) is_device: bool,
}

/// A plug from first to last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) steps: Vec<Step>,
    /// Sent behind the steps whatever became of them: what was only needed on the way.
    pub(crate) cleanup: Vec<Command>,
}

impl Recipe {
    /// Adds a step that lasts, and what takes it back.
    pub(crate) fn make(&mut self, what: &'static str, command: Command, undo: Command) {
        self.steps.push(Step { what, command, undo: Some(undo), is_device: false });
    }

    /// Adds the device. The frontend's name is that of the device.
    pub(crate) fn device(&mut self, what: &'static str, arguments: Value) {
        let command = Command::new("device_add", arguments);
        self.steps.push(Step { what, command, undo: None, is_device: true });
    }

    /// Adds a step that goes with the device, and so behind it.
    pub(crate) fn on_device(&mut self, what: &'static str, command: Command) {
        self.steps.push(Step { what, command, undo: None, is_device: false });
    }

    /// Passes an open file; its path within QEMU is `/dev/fdset/SET`.
    ///
    /// QEMU keeps a copy of its own of what it opens there, so the set could go at once. It goes with the device:
    /// QEMU reads its commands byte by byte (7.2: 3 us each), and a plug is what somebody waits for.
    pub(crate) fn pass_file(&mut self, set: i64, file: &Arc<File>) -> String {
        self.make(PASS_FILE, add_fd(set, file), remove_fd(set));
        format!("/dev/fdset/{set}")
    }

    /// Passes a descriptor that one later step takes by `name`.
    pub(crate) fn pass_descriptor(&mut self, name: &str, file: &Arc<File>) {
        let command = Command { file: Some(file.clone()), ..Command::new("getfd", json!({"fdname": name})) };
        self.steps.push(Step { what: "pass a descriptor", command, undo: None, is_device: false });
        // Refused when the step took it, which is as it should be.
        self.cleanup.push(Command::new("closefd", json!({"fdname": name})));
    }

    /// What takes the lasting steps back, newest first.
    pub(crate) fn undo(&self) -> Vec<Command> {
        self.steps.iter().rev().filter_map(|step| step.undo.clone()).collect()
    }
}

/// What passing a file is called in messages.
pub(crate) const PASS_FILE: &str = "pass a file";

/// Adds an open file to a descriptor set of its own.
pub(crate) fn add_fd(set: i64, file: &Arc<File>) -> Command {
    Command { file: Some(file.clone()), ..Command::new("add-fd", json!({"fdset-id": set})) }
}

/// Removes a descriptor set.
pub(crate) fn remove_fd(set: i64) -> Command {
    Command::new("remove-fd", json!({"fdset-id": set}))
}

/// Numbers of file descriptor sets, each used once.
#[derive(Debug)]
pub(crate) struct SetNumbers<'a>(pub(crate) &'a std::sync::atomic::AtomicI64);

impl SetNumbers<'_> {
    pub(crate) fn next(&self) -> i64 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

/// The name of something behind a device, such as its image: QEMU's ids of different kinds do not
/// meet, so the device's own will do.
pub(crate) fn backend(device: &DeviceId) -> &str {
    device.as_str()
}

/// A recipe as text, one command a line, for comparison with what is known to be right.
#[cfg(test)]
pub(crate) fn text(recipe: &Recipe) -> String {
    let line = |command: &Command| {
        let file = if command.file.is_some() { " +fd" } else { "" };
        format!("{}{file} {}", command.name, command.arguments)
    };
    let steps = recipe.steps.iter().map(|step| line(&step.command));
    let cleanup = recipe.cleanup.iter().map(|command| format!("then {}", line(command)));
    let undo = recipe.undo().into_iter().map(|command| format!("undo {}", line(&command)));
    steps.chain(cleanup).chain(undo).collect::<Vec<_>>().join("\n")
}
