//! How an operator wants VFIO devices to be passed.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a VFIO device is plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// A root port of its own on the root bus.
    RootPort,
    /// A downstream port of the machine's PCIe switch.
    SwitchPort,
    /// A slot of a conventional PCI bridge.
    BridgePort,
}

/// How the guest uses a VFIO device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfioMode {
    /// The guest binds it to VFIO again, and the container finds `/dev/vfio`.
    Vfio,
    /// A driver in the guest's kernel takes it; the container finds what that driver makes.
    GuestKernel,
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerRole {
    /// The pause container, which only holds the pod's namespaces. It gets no VFIO device.
    Pause,
    /// Any other container, init containers included.
    Workload,
}

/// For which moment is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the machine is launched: what is on its command line.
    Launch,
    /// Before a container is created in a running machine.
    Running,
}

/// Not a setting of the VFIO policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: one of {choices}")]
pub struct InvalidPolicy {
    text: String,
    what: &'static str,
    choices: &'static str,
}

/// When and where VFIO devices are plugged, and how they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfioPolicy {
    /// The port for devices that are there when the machine starts, if that is allowed.
    pub cold_plug: Option<Port>,
    /// The port for devices that are plugged into the running machine, if that is allowed; it counts
    /// when both are.
    pub hot_plug: Option<Port>,
    /// How the guest uses them.
    pub mode: VfioMode,
}

impl Port {
    /// Reads a setting in Kata's form: `root-port`, `switch-port`, `bridge-port`, or `no-port` for none.
    ///
    /// # Errors
    /// [`InvalidPolicy`] for any other text, the empty one included: what is not configured must not
    /// look like something that is.
    pub fn parse_setting(text: &str) -> Result<Option<Self>, InvalidPolicy> {
        match text {
            "root-port" => Ok(Some(Self::RootPort)),
            "switch-port" => Ok(Some(Self::SwitchPort)),
            "bridge-port" => Ok(Some(Self::BridgePort)),
            "no-port" => Ok(None),
            _ => Err(InvalidPolicy {
                text: text.to_owned(),
                what: "port for VFIO devices",
                choices: "root-port, switch-port, bridge-port, no-port",
            }),
        }
    }
}

impl FromStr for VfioMode {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        match text {
            "vfio" => Ok(Self::Vfio),
            "guest-kernel" => Ok(Self::GuestKernel),
            _ => Err(InvalidPolicy {
                text: text.to_owned(),
                what: "mode for VFIO devices",
                choices: "vfio, guest-kernel",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_in_katas_form() {
        assert_eq!(Port::parse_setting("root-port"), Ok(Some(Port::RootPort)));
        assert_eq!(Port::parse_setting("switch-port"), Ok(Some(Port::SwitchPort)));
        assert_eq!(Port::parse_setting("bridge-port"), Ok(Some(Port::BridgePort)));
        assert_eq!(Port::parse_setting("no-port"), Ok(None));
        assert_eq!("guest-kernel".parse(), Ok(VfioMode::GuestKernel));
        assert_eq!("vfio".parse(), Ok(VfioMode::Vfio));
        for bad in ["", "invalid-port", "Root-Port", "vfio "] {
            assert!(Port::parse_setting(bad).is_err());
            assert!(bad.parse::<VfioMode>().is_err());
        }
    }
}
