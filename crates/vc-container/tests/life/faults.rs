//! Every call of a life goes wrong once, in every way it can.

use std::time::{Duration, Instant};

use oci_spec::runtime::Process;
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_container::{Container, OperationError, Sandbox, Timing};
use vc_hypervisor::fake::FakeHypervisor;

use crate::bench::{Bench, process};
use crate::faulty::life::{Stack, life};
use crate::faulty::{Fault, Faults, FaultyConnector, FaultyHypervisor};

/// A life has fewer calls than this; a loop that gets here has missed its end.
const MANY: u32 = 100;

/// The fakes behind ports that go wrong.
struct Fakes {
    bench: Bench,
    faults: Faults,
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
        self.bench.container(sandbox, "web").await
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

#[tokio::test(start_paused = true)]
async fn every_call_may_go_wrong() {
    for fault in Fault::PASSING.into_iter().chain([Fault::Vanish]) {
        let mut met = 0;
        for n in 1..MANY {
            let bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
            let fakes = Fakes { bench, faults: Faults::default() };
            if !life(&fakes, n, fault).await {
                break;
            }
            met = n;
        }
        assert!((20..MANY - 1).contains(&met), "{fault:?} came {met} times");
    }
}
