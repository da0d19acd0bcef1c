//! Registry and topology together against a model that is a plain list of uses: any interleaving of
//! attach, detach, failed plug, failed unplug and restart.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use vc_device::{
    Access, AttachError, AttachStep, Capacity, DetachStep, DeviceSource, Handle, Lifetime, PortKind,
    Registry, Topology,
};
use vc_types::DeviceId;

use crate::attach::{block, character, container};

/// Disks 0 to 5; from 6 on character devices.
const DEVICES: usize = 8;
const FIRST_CHARACTER: usize = 6;
/// Fewer than disks, so that they run out.
const PORTS: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plugging,
    Plugged,
    Made,
    Unplugging { was_plugged: bool },
    Uncertain,
}

#[derive(Clone, Debug)]
struct Device {
    state: State,
    access: Access,
    pod: bool,
    /// The containers that use it, oldest first.
    uses: Vec<usize>,
}

/// What should be, by number of the device.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<usize, Device>);

#[derive(Clone, Debug)]
enum Step {
    Attach {
        device: usize,
        container: usize,
        access: Access,
        pod: bool,
    },
    PlugSucceeds(usize),
    PlugFails(usize),
    /// The n-th use, modulo their number.
    Detach {
        device: usize,
        nth: usize,
    },
    DetachContainer(usize),
    Unplug(usize),
    UnplugSucceeds(usize),
    UnplugFails(usize),
    Restart,
}

impl Model {
    /// Whether an attach is to be refused.
    fn refuses(&self, device: usize, access: Access) -> bool {
        let Some(known) = self.0.get(&device) else { return self.no_port_for(device) };
        let writes = access == Access::ReadWrite && known.access == Access::ReadOnly;
        match known.state {
            State::Made => false,
            State::Plugged => writes,
            State::Plugging | State::Unplugging { .. } | State::Uncertain => true,
        }
    }

    fn no_port_for(&self, device: usize) -> bool {
        device < FIRST_CHARACTER && self.held() >= usize::from(PORTS)
    }

    /// How many ports are taken: by all that is not certainly out of the machine.
    fn held(&self) -> usize {
        self.0.values().filter(|device| device.state != State::Made).count()
    }

    fn detach(&mut self, device: usize, nth: usize) {
        let Some(known) = self.0.get_mut(&device).filter(|known| !known.uses.is_empty()) else { return };
        let nth = nth % known.uses.len();
        known.uses.remove(nth);
        if !known.uses.is_empty() {
            return;
        }
        match known.state {
            State::Made => drop(self.0.remove(&device)),
            State::Plugged if known.pod => {}
            State::Plugged => known.state = State::Unplugging { was_plugged: true },
            _ => known.state = State::Unplugging { was_plugged: false },
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let access = prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite)];
        let device = 0..DEVICES;
        let attach = (device.clone(), 0..3_usize, access, any::<bool>());
        let attach = attach.prop_map(|(device, container, access, pod)| Step::Attach {
            device,
            container,
            access,
            pod,
        });
        prop_oneof![
            6 => attach,
            5 => device.clone().prop_map(Step::PlugSucceeds),
            1 => device.clone().prop_map(Step::PlugFails),
            4 => (device.clone(), 0..4_usize).prop_map(|(device, nth)| Step::Detach { device, nth }),
            1 => (0..3_usize).prop_map(Step::DetachContainer),
            1 => device.clone().prop_map(Step::Unplug),
            3 => device.clone().prop_map(Step::UnplugSucceeds),
            2 => device.prop_map(Step::UnplugFails),
            1 => Just(Step::Restart),
        ]
        .boxed()
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        match *step {
            Step::Attach { device, container, access, pod } if !model.refuses(device, access) => {
                let state = if device < FIRST_CHARACTER { State::Plugging } else { State::Made };
                let new = Device { state, access, pod, uses: Vec::new() };
                let known = model.0.entry(device).or_insert(new);
                known.uses.push(container);
                known.pod |= pod;
            }
            Step::PlugSucceeds(device) => {
                if let Some(known) = model.0.get_mut(&device).filter(|known| known.state == State::Plugging) {
                    known.state = State::Plugged;
                }
            }
            Step::PlugFails(device)
                if model.0.get(&device).is_some_and(|known| known.state == State::Plugging) =>
            {
                model.0.remove(&device);
            }
            Step::Detach { device, nth } => model.detach(device, nth),
            Step::DetachContainer(container) => {
                for device in 0..DEVICES {
                    while let Some(nth) = model
                        .0
                        .get(&device)
                        .and_then(|known| known.uses.iter().position(|user| *user == container))
                    {
                        model.detach(device, nth);
                    }
                }
            }
            Step::Unplug(device) => {
                if let Some(known) = model.0.get_mut(&device).filter(|known| known.uses.is_empty()) {
                    known.state = match known.state {
                        State::Plugged => State::Unplugging { was_plugged: true },
                        State::Uncertain => State::Unplugging { was_plugged: false },
                        other => other,
                    };
                }
            }
            Step::UnplugSucceeds(device)
                if model
                    .0
                    .get(&device)
                    .is_some_and(|known| matches!(known.state, State::Unplugging { .. })) =>
            {
                model.0.remove(&device);
            }
            Step::UnplugFails(device) => {
                if let Some(known) = model.0.get_mut(&device) {
                    known.state = match known.state {
                        State::Unplugging { was_plugged: true } => State::Plugged,
                        State::Unplugging { was_plugged: false } => State::Uncertain,
                        other => other,
                    };
                }
            }
            Step::Attach { .. } | Step::PlugFails(_) | Step::UnplugSucceeds(_) | Step::Restart => {}
        }
        model
    }
}

/// What is tested: the registry, and the topology as a hypervisor would drive it.
#[derive(Debug)]
struct Machine {
    registry: Registry,
    topology: Topology,
    /// The handles of each device, oldest first, with the container.
    handles: BTreeMap<usize, Vec<(usize, Handle)>>,
}

fn number(source: &DeviceSource) -> usize {
    let (DeviceSource::Block { number, .. } | DeviceSource::Character { number, .. }) = source else {
        panic!("{source:?}")
    };
    usize::try_from(number.minor()).unwrap()
}

impl Machine {
    fn name(&self, device: usize) -> Option<DeviceId> {
        let names = self.registry.devices();
        names.into_iter().find(|name| number(self.registry.source(name).unwrap()) == device).cloned()
    }

    fn attach(&mut self, device: usize, by: usize, access: Access, pod: bool) {
        let minor = format!("9:{device}");
        let mut request = if device < FIRST_CHARACTER { block(&minor, access) } else { character(&minor) };
        request.access = access;
        let lifetime = if pod { Lifetime::Pod } else { Lifetime::Container };
        let before = self.registry.clone();
        match self.registry.attach(&request, &container(&format!("c{by}")), lifetime) {
            Err(AttachError::Busy { .. } | AttachError::PluggedReadOnly { .. }) => {
                assert_eq!(self.registry, before)
            }
            Err(error) => panic!("{error}"),
            Ok(attached) => {
                if attached.step == AttachStep::Plug
                    && self.topology.take(&attached.device, PortKind::RootPort).is_err()
                {
                    self.registry.plug_failed(attached.handle).unwrap();
                    assert_eq!(self.registry.devices().count(), before.devices().count());
                    return;
                }
                self.handles.entry(device).or_default().push((by, attached.handle));
            }
        }
    }

    fn detach(&mut self, device: usize, nth: usize) {
        let handles = self.handles.entry(device).or_default();
        if !handles.is_empty() {
            let (_, handle) = handles.remove(nth % handles.len());
            let left = handles.len();
            let step = self.registry.detach(handle).unwrap().step;
            assert_eq!(step == DetachStep::StillUsed(left), left > 0, "{step:?}");
        }
    }

    fn plug_fails(&mut self, device: usize) {
        let Some(name) = self.name(device) else { return };
        if self.registry.state(&name).unwrap().to_string() == "being plugged" {
            let (_, handle) = self.handles.remove(&device).unwrap().pop().unwrap();
            self.registry.plug_failed(handle).unwrap();
            self.topology.give_back(&name).unwrap();
        }
    }

    fn unplug_succeeds(&mut self, device: usize) {
        let Some(name) = self.name(device) else { return };
        if self.registry.unplugged(&name).is_ok() {
            self.topology.give_back(&name).unwrap();
        }
    }

    fn restart(&mut self) {
        let restored: Registry =
            serde_json::from_str(&serde_json::to_string(&self.registry).unwrap()).unwrap();
        assert_eq!(restored, self.registry);
        self.registry = restored;
        let restored: Topology =
            serde_json::from_str(&serde_json::to_string(&self.topology).unwrap()).unwrap();
        assert_eq!(restored, self.topology);
        self.topology = restored;
        let known: BTreeSet<Handle> =
            (0..3).flat_map(|by| self.registry.handles(&container(&format!("c{by}")))).collect();
        let held: BTreeSet<&Handle> = self.handles.values().flatten().map(|(_, handle)| handle).collect();
        assert_eq!(known.iter().collect::<BTreeSet<_>>(), held);
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let capacity = Capacity { root_ports: PORTS, ..Capacity::default() };
        let topology = Topology::new(capacity).unwrap();
        Self { registry: Registry::default(), topology, handles: BTreeMap::new() }
    }

    fn apply(mut machine: Self, _: &Model, step: Step) -> Self {
        match step {
            Step::Attach { device, container, access, pod } => machine.attach(device, container, access, pod),
            Step::PlugSucceeds(device) => {
                if let Some(name) = machine.name(device)
                    && let Some(place) = machine.topology.find(&name)
                {
                    // Refused unless it is being plugged, and then nothing changes: the invariants see to that.
                    let _ = machine.registry.plugged(&name, place.guest_location());
                }
            }
            Step::PlugFails(device) => machine.plug_fails(device),
            Step::Detach { device, nth } => machine.detach(device, nth),
            Step::DetachContainer(by) => {
                machine.registry.detach_container(&container(&format!("c{by}"))).clear();
                machine.handles.values_mut().for_each(|handles| handles.retain(|(user, _)| *user != by));
            }
            Step::Unplug(device) => {
                if let Some(name) = machine.name(device) {
                    let _ = machine.registry.unplug(&name);
                }
            }
            Step::UnplugSucceeds(device) => machine.unplug_succeeds(device),
            Step::UnplugFails(device) => {
                if let Some(name) = machine.name(device) {
                    let _ = machine.registry.unplug_failed(&name);
                }
            }
            Step::Restart => machine.restart(),
        }
        machine
    }

    fn check_invariants(machine: &Self, model: &Model) {
        let registry = &machine.registry;
        // Counts and states are those of the model.
        assert_eq!(registry.devices().count(), model.0.len());
        for (device, expected) in &model.0 {
            let name = machine.name(*device).unwrap();
            let users: Vec<String> = registry.uses(&name).map(|used| used.container.to_string()).collect();
            assert_eq!(users, expected.uses.iter().map(|user| format!("c{user}")).collect::<Vec<_>>());
            let state = registry.state(&name).unwrap().to_string();
            let start = match expected.state {
                State::Plugging => "being plugged",
                State::Plugged => "plugged at",
                State::Made => "there without a plug",
                State::Unplugging { .. } => "being unplugged",
                State::Uncertain => "in an unknown state",
            };
            assert!(state.starts_with(start), "{name}: {state}, expected {start}");
            assert_eq!(registry.access(&name), Some(expected.access));
        }
        // Each device that may be in the machine holds one port of its own, and nothing else does.
        let held: BTreeSet<DeviceId> =
            machine.topology.plugged().into_iter().map(|(_, device)| device.clone()).collect();
        let plugged: BTreeSet<DeviceId> =
            registry.devices().filter(|name| registry.source(name).unwrap().is_plugged()).cloned().collect();
        assert_eq!(held, plugged);
        assert_eq!(machine.topology.plugged().len(), model.held());
        // Names are the lowest that are free: none has a number above what could have been in use at once.
        for name in registry.devices() {
            let digits: String = name.as_str().chars().filter(char::is_ascii_digit).collect();
            assert!(digits.parse::<usize>().unwrap() < DEVICES, "{name}");
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_counts_slots_and_names_consistent(sequential 1..60 => Machine);
}
