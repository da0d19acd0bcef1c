//! Every call of a life goes wrong once, in every way it can.

use std::time::{Duration, Instant};

use oci_spec::runtime::{Process, Spec};
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_container::{Container, OperationError, Sandbox, Timing};
use vc_hypervisor::fake::FakeHypervisor;

use crate::bench::{Bench, command, process};
use crate::faulty::life::{Stack, life};
use crate::faulty::{Fault, Faults, FaultyConnector, FaultyHypervisor};
use crate::passing::{GPU, Host, with_nodes};

/// A life has fewer calls than this; a loop that gets here has missed its end.
const MANY: u32 = 100;

/// The fakes behind ports that go wrong.
struct Fakes {
    bench: Bench,
    faults: Faults,
    oci: Spec,
}

impl Stack for Fakes {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn timing(&self) -> Timing {
        self.bench.spec.timing
    }

    fn noise(&self) -> Duration {
        Duration::ZERO
    }

    async fn sandbox(&self) -> Result<Sandbox, OperationError> {
        let hypervisor = FaultyHypervisor::new(self.bench.hypervisor.clone(), &self.faults);
        let connector = FaultyConnector::new(FakeConnector::new(&self.bench.agent), &self.faults);
        Sandbox::create(&hypervisor, &connector, self.bench.spec.clone()).await
    }

    async fn container(&self, sandbox: &Sandbox) -> Result<Container, OperationError> {
        self.bench.container_of(sandbox, "web", self.oci.clone()).await
    }

    fn process(&self) -> Process {
        process("job")
    }

    async fn left_of_container(&self) -> Vec<String> {
        let left = self.bench.agent.left();
        let disks = self.bench.disks().into_iter().map(|disk| format!("disk {disk}"));
        let containers = left.containers.into_iter().map(|id| format!("container {id}"));
        disks.chain(containers).chain(left.mounts.into_iter().map(|at| format!("mount {at}"))).collect()
    }

    fn assert_no_sandbox(&self, when: &str) {
        self.bench.assert_no_sandbox(when);
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Each call of a life goes wrong in each way.
async fn each_call_goes_wrong(bench: impl Fn() -> Bench, oci: &Spec) {
    for fault in Fault::PASSING.into_iter().chain([Fault::Vanish]) {
        let mut met = 0;
        for n in 1..MANY {
            let fakes = Fakes { bench: bench(), faults: Faults::default(), oci: oci.clone() };
            if !life(&fakes, n, fault).await {
                break;
            }
            met = n;
        }
        assert!((20..MANY - 1).contains(&met), "{fault:?} came {met} times");
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_may_go_wrong() {
    each_call_goes_wrong(|| Bench::new(FakeHypervisor::default(), FakeAgent::new()), &command("web")).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_may_go_wrong_when_disks_are_plugged_ahead() {
    let bench = || {
        let mut bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
        bench.ahead("web");
        bench
    };
    each_call_goes_wrong(bench, &command("web")).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_may_go_wrong_when_devices_of_the_host_are_passed() {
    let host = Host::with_gpus();
    each_call_goes_wrong(|| host.bench(), &with_nodes("web", &[GPU])).await;
}
