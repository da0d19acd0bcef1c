//! A model of QEMU on the other end of a QMP stream, which misbehaves at one command; and what must hold
//! whatever it does: every call returns in time, and in the end our table of ports is the model's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use vc_device::{Capacity, Topology};
use vc_hypervisor::{Hotplug, Machine, MachineSpec, PlugError, UnplugError, conformance};
use vc_types::{Deadline, DeviceId, HostPath, VsockCid};

use crate::accelerator::Chosen;
use crate::devices::Devices;
use crate::launch::Connected;
use crate::machine::QemuMachine;
use crate::process::{Bonds, Process};
use crate::qmp::Qmp;
use crate::tail::Tail;
use crate::vsock::{Transport, Vsock};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}"#;

/// The deadline of a call that meets the fault.
const BRIEF: Duration = Duration::from_millis(100);

/// What a call may take beyond its deadline on a busy machine.
const LATENESS: Duration = Duration::from_secs(10);

/// What the model does with one command.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Carries it out and does not answer.
    SilentlyDoes,
    /// Neither carries it out nor answers.
    Loses,
    /// Answers after its caller has given up.
    AnswersLate,
    /// Answers in single bytes.
    AnswersInPieces,
    /// Refuses.
    Refuses,
    /// Closes the stream before it does anything.
    DiesBefore,
    /// Carries it out, then closes the stream in the middle of the answer.
    DiesAfter,
}

#[derive(Default)]
struct State {
    /// The paths of the descriptor sets.
    files: BTreeSet<String>,
    nodes: BTreeSet<String>,
    /// The name of each device, and that of its image.
    devices: BTreeMap<String, String>,
    commands: usize,
    fault: Option<(usize, Fault)>,
}

type World = Arc<Mutex<State>>;

impl State {
    /// Carries out a command; returns the answer and the events that follow it.
    fn obey(&mut self, command: &Value) -> (Value, Vec<Value>) {
        let text =
            |name: &str| command.pointer(&format!("/arguments/{name}")).and_then(Value::as_str).unwrap_or("");
        let refuse = |class: &str| (json!({"error": {"class": class, "desc": "no"}}), Vec::new());
        let done = || (json!({"return": {}}), Vec::new());
        match command["execute"].as_str().unwrap_or("") {
            "add-fd" => {
                self.files.insert(format!("/dev/fdset/{}", command["arguments"]["fdset-id"]));
                (json!({"return": {"fd": 9, "fdset-id": command["arguments"]["fdset-id"]}}), Vec::new())
            }
            "remove-fd" => {
                self.files.remove(&format!("/dev/fdset/{}", command["arguments"]["fdset-id"]));
                done()
            }
            "blockdev-add" if !self.files.contains(text("file/filename")) => refuse("GenericError"),
            "blockdev-add" if !self.nodes.insert(text("node-name").to_owned()) => refuse("GenericError"),
            "blockdev-del" if self.devices.values().any(|node| node == text("node-name")) => {
                refuse("GenericError")
            }
            "blockdev-del" if !self.nodes.remove(text("node-name")) => refuse("GenericError"),
            "device_add" if self.devices.contains_key(text("id")) => refuse("GenericError"),
            "device_add" if !self.nodes.contains(text("drive")) => refuse("GenericError"),
            "device_add" => {
                self.devices.insert(text("id").to_owned(), text("drive").to_owned());
                done()
            }
            "device_del" => match self.devices.remove(text("id")) {
                None => refuse("DeviceNotFound"),
                Some(_) => {
                    let data = json!({"device": text("id"), "path": "/x"});
                    (json!({"return": {}}), vec![json!({"event": "DEVICE_DELETED", "data": data})])
                }
            },
            "query-named-block-nodes" => {
                let nodes: Vec<_> = self.nodes.iter().map(|name| json!({"node-name": name})).collect();
                (json!({"return": nodes}), Vec::new())
            }
            _ => done(),
        }
    }
}

async fn serve(stream: UnixStream, world: World) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.get_mut().write_all(format!("{GREETING}\n").as_bytes()).await.is_err() {
        return;
    }
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let command: Value = serde_json::from_str(&line).unwrap();
        let fault = {
            let mut world = world.lock().unwrap();
            world.commands += 1;
            let now = world.commands;
            world.fault.and_then(|(at, fault)| (at == now).then_some(fault))
        };
        let mut text = match fault {
            Some(Fault::Loses) => continue,
            Some(Fault::DiesBefore) => return,
            Some(Fault::Refuses) => format!(
                "{}\n",
                json!({"error": {"class": "GenericError", "desc": "no"}, "id": command["id"]})
            ),
            _ => {
                let (mut answer, events) = world.lock().unwrap().obey(&command);
                answer["id"] = command["id"].clone();
                let lines = std::iter::once(answer).chain(events);
                lines.map(|line| format!("{line}\n")).collect()
            }
        };
        match fault {
            Some(Fault::SilentlyDoes) => continue,
            Some(Fault::AnswersLate) => tokio::time::sleep(2 * BRIEF).await,
            Some(Fault::DiesAfter) => text.truncate(text.len() / 3),
            _ => {}
        }
        let step = if matches!(fault, Some(Fault::AnswersInPieces)) { 1 } else { text.len() };
        for piece in text.as_bytes().chunks(step) {
            if stream.get_mut().write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if matches!(fault, Some(Fault::DiesAfter)) {
            return;
        }
    }
}

async fn machine(world: &World) -> QemuMachine {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve(theirs, world.clone()));
    let qmp = Qmp::connect(ours, Deadline::after(LATENESS)).await.unwrap();
    let mut command = Command::new("sleep");
    command.arg("600");
    let bonds = Bonds { die_with_parent: true, outlives_parent: false, identity: None };
    let path = HostPath::new("/x").unwrap();
    let spec = MachineSpec::new("model".parse().unwrap(), path.clone(), path.clone(), path);
    let connected = Connected {
        qemu: Process::spawn(command, Vec::new(), &bonds).unwrap(),
        qmp,
        console: Tail::new(16),
        listening: tokio::spawn(async {}),
        vsock: Vsock::in_use(Transport::Kernel { cid: VsockCid(3) }, None, None),
        accelerator: Chosen::Tcg,
    };
    let topology = Topology::new(Capacity { root_ports: 2, ..Capacity::default() }).unwrap();
    QemuMachine::new(connected, &spec, Devices::new(topology))
}

/// Runs a call; it may take as long as its deadline.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let result = call.await;
    assert!(started.elapsed() < BRIEF + LATENESS, "{what} took {:?}", started.elapsed());
    result
}

/// Plugs and unplugs while the `at`-th command meets `fault`, then looks whether everything is in order.
async fn survive(fault: Fault, at: usize) {
    let case = format!("{fault:?} at command {at}");
    let image = tempfile::NamedTempFile::new().unwrap();
    let disk = |name: &str| conformance::disk(name, image.path());
    let id = |name: &str| -> DeviceId { name.parse().unwrap() };
    let world = World::default();
    let machine = machine(&world).await;
    world.lock().unwrap().fault = Some((at, fault));
    let dies = matches!(fault, Fault::DiesBefore | Fault::DiesAfter);
    // A death is told when it is noticed, so that the deadline must not come first.
    let brief = || Deadline::after(if dies { LATENESS } else { BRIEF });
    let plugged = in_time(&case, machine.plug(&disk("d0").into(), brief())).await;
    let ours = || machine.devices();
    let theirs = || -> BTreeSet<_> { world.lock().unwrap().devices.keys().map(|name| id(name)).collect() };
    assert!(ours().is_superset(&theirs()), "{case}: QEMU has what we think is not there");
    let unplugged = match &plugged {
        Ok(_) | Err(PlugError::Unknown { .. }) => {
            Some(in_time(&case, machine.unplug(&id("d0"), brief())).await)
        }
        Err(_) => None,
    };
    assert!(ours().is_superset(&theirs()), "{case}: QEMU has what we think is not there");
    if dies {
        let told = matches!(plugged, Err(PlugError::MachineGone { .. }))
            || matches!(unplugged, Some(Err(UnplugError::MachineGone { .. })));
        assert!(told || at > COMMANDS, "{case}: {plugged:?}, {unplugged:?}");
        in_time(&case, machine.exited()).await;
        return;
    }
    // From now on the model behaves. Whatever is left can be unplugged.
    world.lock().unwrap().fault = None;
    for name in ours() {
        in_time(&case, machine.unplug(&name, Deadline::after(LATENESS)))
            .await
            .unwrap_or_else(|e| panic!("{case}: {e:?}"));
    }
    assert_eq!(ours(), BTreeSet::new(), "{case}");
    assert_eq!(theirs(), BTreeSet::new(), "{case}");
    // Name, image and port are free again.
    machine
        .plug(&disk("d0").into(), Deadline::after(LATENESS))
        .await
        .unwrap_or_else(|e| panic!("{case}: {e:?}"));
    assert_eq!(ours(), theirs(), "{case}");
    assert_eq!(world.lock().unwrap().nodes.len(), 1, "{case}");
}

/// At least as many commands as a plug and an unplug take, the handshake's included.
const COMMANDS: usize = 7;

async fn survive_at_each_command(fault: Fault) {
    for at in 2..=COMMANDS {
        survive(fault, at).await;
    }
}

#[tokio::test]
async fn a_command_done_without_an_answer_leaves_the_tables_equal() {
    survive_at_each_command(Fault::SilentlyDoes).await;
}

#[tokio::test]
async fn a_lost_command_leaves_the_tables_equal() {
    survive_at_each_command(Fault::Loses).await;
}

/// Kata's #13635 and #11649: the retry of a plug that had only been answered late failed for ever.
#[tokio::test]
async fn k13635_a_late_answer_leaves_the_tables_equal() {
    survive_at_each_command(Fault::AnswersLate).await;
}

#[tokio::test]
async fn an_answer_in_pieces_leaves_the_tables_equal() {
    survive_at_each_command(Fault::AnswersInPieces).await;
}

#[tokio::test]
async fn a_refused_command_leaves_the_tables_equal() {
    survive_at_each_command(Fault::Refuses).await;
}

/// Kata's #11686: QEMU died of a plug, which was told as an odd error of the plug.
#[tokio::test]
async fn k11686_a_death_during_a_command_is_told_as_such() {
    survive_at_each_command(Fault::DiesBefore).await;
    survive_at_each_command(Fault::DiesAfter).await;
}
