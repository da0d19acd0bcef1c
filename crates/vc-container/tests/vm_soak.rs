//! Containers in a row in one machine, and machines in a row: each leaves nothing, and this process does not grow.
//!
//! A few with the other tests; `cargo xtask soak` sets `VC_SOAK` to many more.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use vc_agent::{Connector, ExitStatus};
use vc_container::{ContainerSpec, ContainerStorage, Sandbox, SandboxSpec, Stream};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_tests::soak::{self, Held};
use vc_tests::{GuestImage, Layers, Leftovers, shell, shell_process};
use vc_types::{ContainerId, HostPath};

/// The first rounds also fill caches and pools.
const WARM: usize = 3;

/// How many containers make a percent of growth worth a word.
const MANY_CONTAINERS: usize = 200;

/// How many sandboxes do.
const MANY_SANDBOXES: usize = 40;

/// What the guest has of containers: disks, mounted layers, control groups. It is the same in each round.
const LOOK: &str = "ls /sys/block /sys/fs/erofs; cut -f 1,3 /proc/cgroups; exit 5";

struct Bench {
    spec: SandboxSpec,
    busybox: PathBuf,
    leftovers: Leftovers,
    _layers: Layers,
}

impl Bench {
    fn new() -> Option<Self> {
        let image = GuestImage::find()?;
        let (leftovers, layers) = (Leftovers::new(), Layers::new());
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(&leftovers.runtime_dir().join("box"));
        let id = "box".parse().unwrap();
        let mut machine = MachineSpec::new(id, path(&image.kernel), path(&image.initrd), dir);
        machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
        // A port that is not freed is missed at once.
        machine.hotplug_ports = 1;
        let busybox = layers.busybox();
        Some(Self { spec: SandboxSpec::new(machine), busybox, leftovers, _layers: layers })
    }

    async fn sandbox(&self) -> Sandbox {
        Sandbox::create(&Qemu::default(), &Connector::default(), self.spec.clone()).await.unwrap()
    }

    /// A container comes, executes a process, and goes; tells what that process saw.
    async fn container(&self, sandbox: &Sandbox) -> String {
        let (id, oci): (ContainerId, _) = ("web".parse().unwrap(), shell("exec sleep 600"));
        let storage = ContainerStorage::of_layers(id.clone(), [&self.busybox], &oci).unwrap();
        let container = sandbox.create_container(id, ContainerSpec { oci, storage }).await.unwrap();
        container.start().await.unwrap();
        let job = container.exec("job".parse().unwrap(), shell_process(LOOK)).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let some = job.read(Stream::Stdout, 4096).await.unwrap();
            if some.is_empty() {
                break;
            }
            seen.extend(some);
        }
        assert_eq!(job.wait().await.unwrap(), ExitStatus(5));
        let left = container.stop().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        container.delete().await.unwrap();
        String::from_utf8(seen).unwrap()
    }
}

/// What is held after a round, by this process and by QEMU, and what the guest had.
#[derive(Debug)]
struct Round {
    held: Held,
    qemu: Held,
    seen: String,
}

#[tokio::test]
async fn containers_in_a_row_leave_nothing() {
    let Some(bench) = Bench::new() else { return };
    let rounds = soak::times(6);
    // A pool that fills by and by is no leak.
    let warm_rounds = WARM.max(rounds / 10);
    let sandbox = bench.sandbox().await;
    let qemu = bench.leftovers.qemu().unwrap();
    let began = Instant::now();
    let mut warm = None;
    let mut last = None;
    for round in 1..=rounds {
        let seen = bench.container(&sandbox).await;
        let now = Round { held: Held::now(), qemu: Held::by_process(qemu), seen };
        if let Some(warm) = &warm {
            check(round, warm, &now);
        }
        if round % (rounds / 10).max(1) == 0 {
            println!("container {round}: {:?}, QEMU {:?}", now.held, now.qemu);
        }
        if round == warm_rounds {
            warm = Some(now);
        } else {
            last = Some(now);
        }
    }
    let (warm, last) = (warm.unwrap(), last.unwrap());
    let growth = last.held.growth_since(warm.held);
    println!("{rounds} containers in {:.1?}, after {warm_rounds}: {warm:?}", began.elapsed());
    println!("at the end: {:?}, {:?}; growth {growth:.2} %", last.held, last.qemu);
    assert!(rounds < MANY_CONTAINERS || growth <= 1.0, "{growth} %");
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

#[track_caller]
fn check(round: usize, warm: &Round, now: &Round) {
    assert_eq!(now.seen, warm.seen, "round {round}: what the guest has");
    assert!(now.held.descriptors <= warm.held.descriptors, "round {round}: {now:?}, {warm:?}");
    assert!(now.held.threads <= warm.held.threads + 1, "round {round}: {now:?}, {warm:?}");
    assert!(now.held.resident <= warm.held.resident + (1 << 20), "round {round}: {now:?}, {warm:?}");
    assert!(now.qemu.descriptors <= warm.qemu.descriptors, "round {round}: {now:?}, {warm:?}");
}

#[tokio::test]
async fn sandboxes_in_a_row_leave_nothing() {
    let Some(bench) = Bench::new() else { return };
    let rounds = soak::times(2);
    let warm_rounds = 1.max(rounds / 5);
    let mut warm = None;
    for round in 1..=rounds {
        let began = Instant::now();
        let sandbox = bench.sandbox().await;
        bench.container(&sandbox).await;
        let ending = Instant::now();
        sandbox.stop().await.unwrap();
        drop(sandbox);
        let (took, end) = (began.elapsed(), ending.elapsed());
        bench.leftovers.assert_none();
        let now = Held::now();
        println!("sandbox {round}: {took:.1?}, its end {end:.1?}; {now:?}");
        match warm {
            None if round == warm_rounds => warm = Some(now),
            None => {}
            Some(warm) => {
                // The tasks of a machine that has ended let go of it a moment later.
                assert!(now.descriptors <= warm.descriptors + 4, "round {round}: {now:?}, {warm:?}");
                assert!(now.resident <= warm.resident + (2 << 20), "round {round}: {now:?}, {warm:?}");
            }
        }
    }
    let (warm, now) = (warm.unwrap(), Held::now());
    let growth = now.growth_since(warm);
    println!("after {warm_rounds} {warm:?}, at the end {now:?}; growth {growth:.2} %");
    assert!(rounds < MANY_SANDBOXES || growth <= 1.0, "{growth} %");
}
