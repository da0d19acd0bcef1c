//! What should be: a plain list of uses, and the steps that change it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use vc_device::Access;

/// Disks 0 to 5; from 6 on character devices.
pub(crate) const DEVICES: usize = 8;
pub(crate) const FIRST_CHARACTER: usize = 6;
/// Fewer than disks, so that they run out.
pub(crate) const PORTS: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Plugging,
    Plugged,
    Made,
    Unplugging { was_plugged: bool },
    Uncertain,
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) state: State,
    pub(crate) access: Access,
    pod: bool,
    /// The containers that use it, oldest first.
    pub(crate) uses: Vec<usize>,
}

/// What should be, by number of the device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(pub(crate) BTreeMap<usize, Device>);

#[derive(Clone, Debug)]
pub(crate) enum Step {
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
    pub(crate) fn held(&self) -> usize {
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
