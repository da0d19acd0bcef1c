//! What every adapter owes its callers, as tests that run on the fake and on the real thing.
//!
//! Each function panics when the obligation does not hold. They want a spec with at least two
//! hot-plug ports, and an image that may be opened for reading.

mod hotplug;
mod life;
mod resize;

use std::path::Path;
use std::time::Duration;

use vc_types::Deadline;

use crate::{Hypervisor, MachineSpec};

pub use hotplug::{disk, unplugged_means_free_again};

/// Ample for a slow machine; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every obligation that needs nothing of the guest.
///
/// # Panics
/// When one does not hold.
pub async fn run<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    life::stop_is_final_and_may_be_repeated(hypervisor, spec).await;
    life::exits_are_told_to_everyone(hypervisor, spec).await;
    life::a_stop_that_nobody_waits_for_happens(hypervisor, spec).await;
    life::a_deaf_guest_delays_the_end_until_the_grace_is_over(hypervisor, spec).await;
    life::pausing_is_repeatable_and_no_obstacle(hypervisor, spec).await;
    life::what_is_plugged_before_the_start_is_there(hypervisor, spec, image).await;
    life::statistics_tell_of_the_machine(hypervisor, spec).await;
    life::a_stopped_machine_obeys_no_more(hypervisor, spec).await;
    life::a_machine_that_was_let_go_can_be_taken_over(hypervisor, spec, image).await;
    life::what_a_dead_owner_left_can_be_cleaned_up(hypervisor, spec).await;
    resize::a_machine_grows_as_far_as_it_was_launched_for(hypervisor, spec).await;
    resize::more_and_less_than_possible_is_refused(hypervisor, spec).await;
    resize::a_machine_of_fixed_size_keeps_it(hypervisor, spec).await;
    resize::a_disk_grows_with_its_image(hypervisor, spec, image).await;
    hotplug::a_device_has_one_place(hypervisor, spec, image).await;
    hotplug::disks_find_room_when_ports_are_taken(hypervisor, spec, image).await;
    hotplug::many_at_once_have_a_place_each(hypervisor, spec, image).await;
    hotplug::what_nobody_can_plug_is_refused(hypervisor, spec, image).await;
    hotplug::a_stopped_machine_plugs_nothing(hypervisor, spec, image).await;
}

async fn launch<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) -> H::Machine {
    hypervisor.launch(spec, Deadline::after(PATIENCE)).await.expect("the machine launches")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHypervisor;
    use vc_types::HostPath;

    #[tokio::test]
    async fn the_fake_meets_its_obligations() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let path = HostPath::new(image.path()).unwrap();
        let mut spec = MachineSpec::new("fake".parse().unwrap(), path.clone(), path.clone(), path);
        spec.hotplug_ports = 3;
        let fake = FakeHypervisor::default();
        run(&fake, &spec, image.path()).await;
        let machine = launch(&fake, &spec).await;
        unplugged_means_free_again(&machine, image.path()).await;
        drop(machine);
        assert!(fake.machines().is_empty(), "a dropped machine ends");
    }
}
