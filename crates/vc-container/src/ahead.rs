//! What is done for a container before it is created: while the guest boots, its disks are plugged and its
//! directories get served.

use vc_hypervisor::Machine;
use vc_types::ContainerId;

use crate::devices::Devices;
use crate::error::OperationError;
use crate::metrics::Metrics;
use crate::plug::Plugs;
use crate::storage::{ContainerStorage, Shares};
use crate::timing::Budget;
use crate::undo::Undo;

/// What was done ahead for a container, which holds it from its creation on.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) container: ContainerId,
    pub(crate) undo: Undo,
    /// What went wrong, which is the end of the container's creation.
    pub(crate) result: Result<(), OperationError>,
}

/// Does what can be done.
pub(crate) async fn prepare(
    storage: &ContainerStorage,
    machine: &impl Machine,
    (devices, shares): (&Devices, &Shares),
    metrics: &Metrics,
    budget: Budget,
) -> Ahead {
    let container = storage.plan.container.clone();
    let mut undo = Undo::default();
    let plugs = Plugs { machine, devices, container: &container, budget };
    let steps = async {
        // One that is still to be made cannot be plugged.
        if storage.plan.images.is_empty() {
            let plugging = plugs.disks((&storage.plan.disks, &storage.images), &mut undo);
            metrics.step("plug layers", tracing::info_span!("plug layers"), plugging).await?;
        }
        if !storage.plan.shares.is_empty() {
            let serving = shares.start(machine, budget.deadline());
            metrics.step("serve shares", tracing::info_span!("serve shares"), serving).await?;
        }
        Ok(())
    };
    let result = steps.await;
    Ahead { container, undo, result }
}
