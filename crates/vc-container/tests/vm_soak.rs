//! Containers in a row in one machine: each leaves nothing, and this process does not grow.
//!
//! A few with the other tests; `cargo xtask soak` sets `VC_SOAK` to many more.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Process, SpecBuilder};
use vc_agent::{Connector, ExitStatus};
use vc_container::{ContainerSpec, ContainerStorage, Sandbox, SandboxSpec};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{ContainerId, HostPath};

/// The first rounds also fill caches and pools.
const WARM: u32 = 3;

fn process(script: &str) -> Process {
    let mut process = Process::default();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).into()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    process
}

fn count(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// The memory that this process occupies, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn containers_in_a_row_leave_nothing() {
    let Some(image) = GuestImage::find() else { return };
    let rounds = std::env::var("VC_SOAK").map_or(6, |rounds| rounds.parse().expect("VC_SOAK is a number"));
    let (leftovers, layers) = (Leftovers::new(), Layers::new());
    let busybox = layers.busybox();
    let path = |path: &Path| HostPath::new(path).unwrap();
    let dir = path(&leftovers.runtime_dir().join("box"));
    let mut machine = MachineSpec::new("box".parse().unwrap(), path(&image.kernel), path(&image.initrd), dir);
    machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
    // A port that is not freed is missed at once.
    machine.hotplug_ports = 1;
    let (qemu, spec) = (Qemu::default(), SandboxSpec::new(machine));
    let sandbox = Sandbox::create(&qemu, &Connector::default(), spec).await.unwrap();
    let mut oci = SpecBuilder::default().build().unwrap();
    oci.set_process(Some(process("exec sleep 600")));
    let began = Instant::now();
    let mut warm = None;
    for round in 0..rounds {
        let id: ContainerId = "web".parse().unwrap();
        let storage = ContainerStorage::of_layers(id.clone(), [&busybox], &oci).unwrap();
        let spec = ContainerSpec { oci: oci.clone(), storage };
        let container = sandbox.create_container(id, spec).await.unwrap();
        container.start().await.unwrap();
        let job = container.exec("job".parse().unwrap(), process("exit 5")).await.unwrap();
        assert_eq!(job.wait().await.unwrap(), ExitStatus(5), "round {round}");
        let left = container.stop().await.unwrap();
        assert!(left.is_empty(), "round {round}: {left:?}");
        container.delete().await.unwrap();
        let now = (count("/proc/self/fd"), resident());
        match warm {
            None if round + 1 == WARM => warm = Some(now),
            None => {}
            Some((descriptors, memory)) => {
                assert!(now.0 <= descriptors, "round {round}: {now:?}, {warm:?}");
                assert!(now.1 <= memory + memory / 100 + (1 << 20), "round {round}: {now:?}, {warm:?}");
            }
        }
    }
    println!("{rounds} containers in {:?}; {warm:?}, then {:?}", began.elapsed(), resident());
    let ending = Instant::now();
    sandbox.stop().await.unwrap();
    println!("the sandbox ended in {:?}", ending.elapsed());
    assert!(ending.elapsed() < Duration::from_secs(30));
    leftovers.assert_none();
}
