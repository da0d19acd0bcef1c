//! Annotations by which a container finds its devices in the guest (Container Device Interface).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ContainerRole, VfioMode, VfioPath, VfioPlan};
use crate::sysfs::PciFunction;
use crate::topology::Place;
use vc_types::Bdf;

/// A kind of device that is numbered in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CdiKind {
    /// Who made it.
    pub vendor: u16,
    /// The start of its PCI class, in hexadecimal digits: `030` for displays.
    pub class_prefix: String,
    /// What CDI calls it, `vendor.com/class`.
    pub name: String,
}

/// The kinds of devices that are numbered in the guest; the first one that fits counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CdiKinds(pub Vec<CdiKind>);

impl Default for CdiKinds {
    /// NVIDIA's GPUs (displays, class 03) and NVSwitches (other bridges, class 0680).
    fn default() -> Self {
        let nvidia = |class_prefix: &str, name: &str| CdiKind {
            vendor: 0x10de,
            class_prefix: class_prefix.to_owned(),
            name: name.to_owned(),
        };
        Self(vec![nvidia("030", "nvidia.com/gpu"), nvidia("068", "nvidia.com/nvswitch")])
    }
}

impl CdiKinds {
    /// The name of the kind that `function` is of.
    pub fn name_of(&self, function: &PciFunction) -> Option<&str> {
        let class = format!("{:06x}", function.class.0);
        let fits = |kind: &&CdiKind| kind.vendor == function.vendor && class.starts_with(&kind.class_prefix);
        self.0.iter().find(fits).map(|kind| kind.name.as_str())
    }
}

/// A device of the machine, and where it is plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The device.
    pub function: PciFunction,
    /// Where it is.
    pub place: Place,
}

/// Why a container's devices cannot be annotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// A device of a known kind is not in the machine.
    #[error("{path}: {bdf} is a {kind}, but it is not plugged into the machine")]
    Unmatched {
        /// The node.
        path: VfioPath,
        /// The device.
        bdf: Bdf,
        /// Its kind.
        kind: String,
    },
}

/// The annotations of a container whose devices are those of `plan`: `cdi.k8s.io/vfioN`, with N from
/// the node's name, gives the numbers that the guest counts the devices by, such as `nvidia.com/gpu=1`.
///
/// The guest counts each kind from 0, root ports before switch ports, each by number. A node with
/// several devices of a known kind gives them all, comma between (CDI specification, "Annotations").
/// Without [`VfioMode::GuestKernel`], and for the pause container, there are none.
///
/// # Errors
/// [`AnnotationError::Unmatched`] when a device of a known kind is not among `siblings`.
pub fn annotations(
    plan: &VfioPlan,
    siblings: &[Sibling],
    kinds: &CdiKinds,
    (mode, role): (VfioMode, ContainerRole),
) -> Result<BTreeMap<String, String>, AnnotationError> {
    if mode != VfioMode::GuestKernel || role == ContainerRole::Pause {
        return Ok(BTreeMap::new());
    }
    let numbers = numbers(siblings, kinds);
    let mut values: BTreeMap<u32, BTreeSet<(&str, usize)>> = BTreeMap::new();
    for planned in &plan.functions {
        let Some(function) = planned.member.pci() else { continue };
        let Some(kind) = kinds.name_of(function) else { continue };
        let (path, bdf) = (planned.via, function.bdf);
        let number = numbers.get(&(kind, bdf)).ok_or_else(|| AnnotationError::Unmatched {
            path,
            bdf,
            kind: kind.to_owned(),
        })?;
        if let Some(node) = path.number() {
            values.entry(node).or_default().insert((kind, *number));
        }
    }
    let joined = |values: BTreeSet<(&str, usize)>| {
        values.iter().map(|(kind, number)| format!("{kind}={number}")).collect::<Vec<_>>().join(",")
    };
    Ok(values.into_iter().map(|(node, values)| (format!("cdi.k8s.io/vfio{node}"), joined(values))).collect())
}

/// Each device of a known kind with its number among its kind.
fn numbers<'a>(siblings: &[Sibling], kinds: &'a CdiKinds) -> BTreeMap<(&'a str, Bdf), usize> {
    let mut sorted: Vec<_> = siblings.iter().collect();
    sorted.sort_by_key(|sibling| sibling.place);
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for sibling in sorted {
        if let Some(kind) = kinds.name_of(&sibling.function) {
            let number = next.entry(kind).or_default();
            numbers.insert((kind, sibling.function.bdf), *number);
            *number += 1;
        }
    }
    numbers
}
