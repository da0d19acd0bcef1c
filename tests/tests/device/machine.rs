//! What is: a registry and a topology that are driven by the model's steps, and compared with it.

use std::collections::{BTreeMap, BTreeSet};

use proptest_state_machine::StateMachineTest;
use vc_device::{
    Access, AttachError, AttachStep, Capacity, DetachStep, DeviceSource, Handle, Lifetime, PortKind,
    Registry, Topology,
};
use vc_types::DeviceId;

use crate::model::{DEVICES, FIRST_CHARACTER, Model, PORTS, State, Step};
use crate::{block, character, container};

/// The registry, and the topology as a hypervisor would drive it.
#[derive(Debug)]
pub(crate) struct Machine {
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
        let request =
            if device < FIRST_CHARACTER { block(&minor, access) } else { character(&minor, access) };
        let lifetime = if pod { Lifetime::Pod } else { Lifetime::Container };
        let before = self.registry.clone();
        match self.registry.attach(&request, &container(&format!("c{by}")), lifetime) {
            Err(AttachError::Busy { .. } | AttachError::PluggedReadOnly { .. }) => {
                assert_eq!(self.registry, before);
            }
            Err(AttachError::KeptReadOnly { device, .. }) => {
                assert_eq!(self.registry, before);
                // The way that the error offers is open.
                assert_eq!(self.registry.clone().unplug(&device), Ok(DetachStep::Unplug));
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
