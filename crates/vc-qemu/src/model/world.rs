//! The model: what it knows of QEMU, and how it misbehaves at one command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use vc_types::DeviceId;

use super::BRIEF;
use crate::control::PERIPHERALS;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}"#;

/// What the model does with one command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
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

impl Fault {
    pub(super) const ALL: [Self; 7] = [
        Self::SilentlyDoes,
        Self::Loses,
        Self::AnswersLate,
        Self::AnswersInPieces,
        Self::Refuses,
        Self::DiesBefore,
        Self::DiesAfter,
    ];

    pub(super) fn is_death(self) -> bool {
        matches!(self, Self::DiesBefore | Self::DiesAfter)
    }
}

/// What stands behind a device: its kind, and its name.
type Backend = (&'static str, String);

/// The properties of a device that name what stands behind it.
const BACKENDS: [(&str, &str); 4] =
    [("drive", "node"), ("netdev", "netdev"), ("memdev", "object"), ("chardev", "chardev")];

/// A device that is there.
struct Device {
    backends: Vec<Backend>,
    /// The device whose bus it is on.
    parent: Option<String>,
    arguments: Value,
}

#[derive(Default)]
pub(super) struct State {
    /// The paths of the descriptor sets.
    files: BTreeSet<String>,
    /// The names of descriptors that nobody has taken yet.
    descriptors: BTreeSet<String>,
    /// Everything that stands behind a device, with the arguments it was made with.
    pub(super) backends: BTreeMap<Backend, Value>,
    devices: BTreeMap<String, Device>,
    /// The sizes of the disks that were given another.
    pub(super) sizes: BTreeMap<String, u64>,
    /// How many vCPUs there may be, one of them from the start.
    pub(super) max_vcpus: usize,
    /// The size of the virtio-mem device, if there is one.
    pub(super) virtio_mem: Option<u64>,
    commands: usize,
    fault: Option<(usize, Fault)>,
}

pub(super) type World = Arc<Mutex<State>>;

type Answer = (Value, Vec<Value>);

fn refuse(class: &str) -> Answer {
    (json!({"error": {"class": class, "desc": "no"}}), Vec::new())
}

fn answer(value: Value) -> Answer {
    (json!({"return": value}), Vec::new())
}

fn done_if(done: bool) -> Answer {
    if done { answer(json!({})) } else { refuse("GenericError") }
}

impl State {
    /// The `at`-th command from the start of the stream will meet the fault.
    pub(super) fn misbehave(&mut self, at: usize, fault: Fault) {
        self.fault = Some((at, fault));
    }

    pub(super) fn behave(&mut self) {
        self.fault = None;
    }

    /// How many commands there have been.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Whether nothing is left that a plug makes: a file that is still open cannot be let go of.
    pub(super) fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.devices.is_empty() && self.files.is_empty()
    }

    /// The devices that somebody asked for by these names; others stand behind them.
    pub(super) fn devices(&self) -> BTreeSet<DeviceId> {
        let own = self.devices.iter().filter(|(_, device)| device.parent.is_none());
        own.map(|(name, _)| name.parse().unwrap()).collect()
    }

    /// The names of the devices of this driver.
    pub(super) fn of_driver(&self, driver: &str) -> Vec<&str> {
        let is_of = |device: &Device| device.arguments["driver"] == driver;
        self.devices.iter().filter(|(_, device)| is_of(device)).map(|(name, _)| &**name).collect()
    }

    /// Carries out a command; returns the answer and the events that follow it.
    fn obey(&mut self, command: &Value) -> Answer {
        let arguments = &command["arguments"];
        let text = |name: &str| arguments[name].as_str().unwrap_or("").to_owned();
        let set = || format!("/dev/fdset/{}", arguments["fdset-id"]);
        match command["execute"].as_str().unwrap_or("") {
            "add-fd" => {
                self.files.insert(set());
                answer(json!({"fd": 9, "fdset-id": arguments["fdset-id"]}))
            }
            "remove-fd" => done_if(self.files.remove(&set())),
            // One of the same name is replaced.
            "getfd" => {
                self.descriptors.insert(text("fdname"));
                answer(json!({}))
            }
            "closefd" => done_if(self.descriptors.remove(&text("fdname"))),
            "blockdev-add" => self.make("node", text("node-name"), arguments),
            "object-add" => self.make("object", text("id"), arguments),
            "netdev_add" => self.make("netdev", text("id"), arguments),
            "chardev-add" => self.make("chardev", text("id"), arguments),
            "blockdev-del" => self.unmake("node", text("node-name")),
            "object-del" => self.unmake("object", text("id")),
            "netdev_del" => self.unmake("netdev", text("id")),
            "chardev-remove" => self.unmake("chardev", text("id")),
            "device_add" => self.add(text("id"), arguments),
            "device_del" => self.remove(&text("id")),
            "query-named-block-nodes" => answer(self.nodes()),
            "block_resize" => {
                self.sizes.insert(text("node-name"), arguments["size"].as_u64().unwrap());
                answer(json!({}))
            }
            "query-hotpluggable-cpus" => answer(self.vcpus()),
            "query-memory-devices" => answer(self.memory()),
            "qom-list" if text("path") == PERIPHERALS => answer(self.peripherals()),
            "qom-get" => self.property(&text("path"), &text("property")),
            "qom-list" => {
                let objects = self.backends.keys().filter(|(kind, _)| *kind == "object");
                answer(objects.map(|(_, name)| json!({"name": name, "type": "child<memory>"})).collect())
            }
            "qom-set" => {
                let size = arguments["value"].as_u64();
                self.virtio_mem = size;
                let data = json!({"id": "virtio-mem", "size": size, "qom-path": "/x"});
                (json!({"return": {}}), vec![json!({"event": "MEMORY_DEVICE_SIZE_CHANGE", "data": data})])
            }
            _ => answer(json!({})),
        }
    }

    /// Makes something that will stand behind a device, from descriptors that were passed.
    fn make(&mut self, kind: &'static str, name: String, arguments: &Value) -> Answer {
        let file = arguments.pointer("/file/filename").and_then(Value::as_str);
        let descriptors = [arguments.pointer("/fds"), arguments.pointer("/backend/data/addr/data/str")];
        let descriptors = descriptors.into_iter().flatten().filter_map(Value::as_str);
        let taken: Vec<_> = descriptors.flat_map(|names| names.split(':')).collect();
        let is_open = file.is_none_or(|file| self.files.contains(file))
            && taken.iter().all(|name| self.descriptors.contains(*name));
        if !is_open || self.backends.contains_key(&(kind, name.clone())) {
            return refuse("GenericError");
        }
        self.descriptors.retain(|name| !taken.contains(&&**name));
        self.backends.insert((kind, name), arguments.clone());
        answer(json!({}))
    }

    fn unmake(&mut self, kind: &'static str, name: String) -> Answer {
        let backend = (kind, name);
        let in_use = self.devices.values().any(|device| device.backends.contains(&backend));
        done_if(!in_use && self.backends.remove(&backend).is_some())
    }

    fn add(&mut self, name: String, arguments: &Value) -> Answer {
        let text = |name: &str| arguments[name].as_str();
        let backends =
            BACKENDS.into_iter().filter_map(|(property, kind)| Some((kind, text(property)?.into())));
        let backends: Vec<Backend> = backends.collect();
        let parent = text("bus").and_then(|bus| bus.strip_suffix(".0"));
        let parent = parent.filter(|parent| self.devices.contains_key(*parent)).map(str::to_owned);
        let is_possible = backends.iter().all(|backend| self.backends.contains_key(backend))
            && (text("driver") != Some("virtserialport") || parent.is_some());
        if !is_possible || self.devices.contains_key(&name) {
            return refuse("GenericError");
        }
        self.devices.insert(name, Device { backends, parent, arguments: arguments.clone() });
        answer(json!({}))
    }

    fn remove(&mut self, name: &str) -> Answer {
        let Some(device) = self.devices.remove(name) else { return refuse("DeviceNotFound") };
        self.devices.retain(|_, other| other.parent.as_deref() != Some(name));
        // Of a vCPU only a part is told.
        let is_vcpu = device.arguments["driver"] == VCPU;
        let data = match is_vcpu {
            true => json!({"path": format!("/machine/peripheral/{name}/lapic")}),
            false => json!({"device": name, "path": format!("/machine/peripheral/{name}")}),
        };
        (json!({"return": {}}), vec![json!({"event": "DEVICE_DELETED", "data": data})])
    }

    /// The guest has let go of a device, and nobody was there to hear of it.
    pub(super) fn lose(&mut self, device: &DeviceId) {
        self.remove(device.as_str());
    }

    fn peripherals(&self) -> Value {
        let kind = |device: &Device| format!("child<{}>", device.arguments["driver"].as_str().unwrap());
        self.devices.iter().map(|(name, device)| json!({"name": name, "type": kind(device)})).collect()
    }

    /// A device's bus is a path, everything else is as it was given.
    fn property(&self, path: &str, name: &str) -> Answer {
        let device = path.strip_prefix(PERIPHERALS).and_then(|path| self.devices.get(&path[1..]));
        let given = |name: &str| device.and_then(|device| device.arguments.get(name)).cloned();
        match (name, given("bus")) {
            ("parent_bus", Some(Value::String(bus))) => answer(format!("{PERIPHERALS}/{bus}/{bus}").into()),
            _ => given(name).map_or_else(|| refuse("GenericError"), answer),
        }
    }

    fn nodes(&self) -> Value {
        let nodes = self.backends.keys().filter(|(kind, _)| *kind == "node");
        let size = |name: &String| self.sizes.get(name).copied().unwrap_or_default();
        nodes.map(|(_, name)| json!({"node-name": name, "image": {"virtual-size": size(name)}})).collect()
    }

    /// The last slot first, as QEMU lists them.
    fn vcpus(&self) -> Value {
        let slot = |socket: usize| {
            let taken = self.devices.iter().find(|(_, device)| {
                device.arguments["driver"] == VCPU && device.arguments["socket-id"] == socket
            });
            let mut slot = json!({"type": VCPU, "vcpus-count": 1, "props": {"socket-id": socket}});
            if let Some((name, _)) = taken {
                slot["qom-path"] = format!("/machine/peripheral/{name}").into();
            } else if socket == 0 {
                slot["qom-path"] = "/machine/unattached/device[0]".into();
            }
            slot
        };
        (0..self.max_vcpus).rev().map(slot).collect()
    }

    fn memory(&self) -> Value {
        let dimm = |(name, device): (&String, &Device)| {
            let object = ("object", device.arguments["memdev"].as_str()?.to_owned());
            let size = &self.backends.get(&object)?["size"];
            let data = json!({
                "id": name, "addr": 0, "size": size, "slot": 0, "node": 0, "memdev": "/x",
                "hotplugged": true, "hotpluggable": true,
            });
            (device.arguments["driver"] == "pc-dimm").then(|| json!({"type": "dimm", "data": data}))
        };
        let virtio_mem = self.virtio_mem.map(|size| {
            let data = json!({
                "id": "virtio-mem", "memaddr": 0, "requested-size": size, "size": size,
                "max-size": 1_u64 << 40, "block-size": 2 << 20, "node": 0, "memdev": "/x",
            });
            json!({"type": "virtio-mem", "data": data})
        });
        self.devices.iter().filter_map(dimm).chain(virtio_mem).collect()
    }
}

/// The driver of a vCPU.
pub(super) const VCPU: &str = "max-x86_64-cpu";

/// Serves a QMP stream.
pub(super) async fn serve(stream: UnixStream, world: World) {
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
