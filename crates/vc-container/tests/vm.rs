//! The orchestrator with a real machine, and the agent of the guest held to its obligations.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use vc_agent::conformance::{self, Fixture, Workload};
use vc_agent::{Connector, CreateContainer, CreateSandbox, ExitStatus, Signal};
use vc_container::{
    Cause, Container, ContainerSpec, ContainerStorage, GuestFeatures, Sandbox, SandboxSpec, State, Stream,
    Timing, guest_spec,
};
use vc_device::{Access, BlockSpec, GuestLocation};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::Qemu;
use vc_storage::{DiskPlug, Layer};
use vc_tests::{GuestImage, Layers, Leftovers, shell};
use vc_types::{ContainerId, Deadline, HostPath};

struct Bench {
    image: GuestImage,
    layers: Layers,
    busybox: PathBuf,
    leftovers: Leftovers,
}

impl Bench {
    fn new() -> Option<Self> {
        let image = GuestImage::find()?;
        let layers = Layers::new();
        let busybox = layers.busybox();
        Some(Self { image, layers, busybox, leftovers: Leftovers::new() })
    }

    fn machine(&self) -> MachineSpec {
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(&self.leftovers.runtime_dir().join("box"));
        let image = &self.image;
        let id = "box".parse().unwrap();
        let mut spec = MachineSpec::new(id, path(&image.kernel), path(&image.initrd), dir);
        spec.hotplug_ports = 6;
        spec.accelerator = vc_tests::host::accelerator().parse().unwrap();
        spec
    }

    async fn sandbox(&self) -> Sandbox {
        let spec = SandboxSpec::new(self.machine());
        Sandbox::create(&Qemu::default(), &Connector::default(), spec).await.unwrap()
    }

    fn container(&self, id: &str, script: &str, layers: &[&Path]) -> ContainerSpec {
        let oci = shell(script);
        let storage = ContainerStorage::of_layers(id.parse().unwrap(), layers, &oci).unwrap();
        ContainerSpec { oci, storage }
    }
}

async fn output(container: &Container) -> String {
    let mut all = Vec::new();
    loop {
        let some = container.read(Stream::Stdout, 4096).await.unwrap();
        if some.is_empty() {
            return String::from_utf8(all).unwrap();
        }
        all.extend(some);
    }
}

#[tokio::test]
async fn containers_come_and_go_in_one_machine() {
    let Some(bench) = Bench::new() else { return };
    let sandbox = bench.sandbox().await;
    let extra = bench.layers.layer("extra", |root| std::fs::write(root.join("extra"), "yes\n").unwrap());
    let long = bench.container("long", "exec sleep 600", &[&bench.busybox]);
    let long = sandbox.create_container("long".parse().unwrap(), long).await.unwrap();
    long.start().await.unwrap();
    // Without unplugging, the second round would find too few ports.
    for round in 0..3 {
        let spec =
            bench.container("short", "cat /extra; echo gone > /tmp/x; exit 4", &[&extra, &bench.busybox]);
        let short = sandbox.create_container("short".parse().unwrap(), spec).await.unwrap();
        short.start().await.unwrap();
        assert_eq!(output(&short).await, "yes\n", "round {round}");
        assert_eq!(short.wait().await.unwrap(), ExitStatus(4));
        assert!(short.stop().await.unwrap().is_empty(), "round {round}");
        short.delete().await.unwrap();
    }
    long.signal(Signal::KILL).await.unwrap();
    assert_eq!(long.wait().await.unwrap(), ExitStatus(137));
    assert!(long.stop().await.unwrap().is_empty());
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

/// A pod: what a container has no namespace for it shares with the others.
#[tokio::test]
async fn containers_without_namespaces_share_pids_and_host_name() {
    let Some(bench) = Bench::new() else { return };
    let sandbox = bench.sandbox().await;
    let first = bench.container("first", "exec sleep 600", &[&bench.busybox]);
    let first = sandbox.create_container("first".parse().unwrap(), first).await.unwrap();
    first.start().await.unwrap();
    let script = "ps | grep -c '[s]leep 600'; hostname";
    let sharing = || {
        let mut spec = bench.container("joins", script, &[&bench.busybox]);
        let mut linux = Linux::default();
        linux.set_namespaces(Some(vec![]));
        spec.oci.set_linux(Some(linux)).set_hostname(None);
        spec
    };
    let own = bench.container("own", script, &[&bench.busybox]);
    for (id, spec, expected) in [("joins", sharing(), "1\nbox\n"), ("own", own, "0\nyouki\n")] {
        let container = sandbox.create_container(id.parse().unwrap(), spec).await.unwrap();
        container.start().await.unwrap();
        assert_eq!(output(&container).await, expected, "{id}");
        assert!(container.stop().await.unwrap().is_empty());
        container.delete().await.unwrap();
    }
    assert!(first.stop().await.unwrap().is_empty());
    // The kernel ends a namespace with its first process, so nobody can join it any more.
    let refused = sandbox.create_container("joins".parse().unwrap(), sharing()).await.unwrap_err();
    assert!(format!("{refused:?}").contains("whose pids the sandbox shares has ended"), "{refused:?}");
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

#[tokio::test]
async fn d1_128_layers_are_one_disk_and_keep_their_order() {
    let Some(bench) = Bench::new() else { return };
    let make = |n: usize| {
        bench.layers.layer(&format!("l{n}"), |root| {
            // The upper of two neighbours wins, and every one is there.
            for file in ["all".to_owned(), format!("pair{n}"), format!("pair{}", n + 1), format!("own{n}")] {
                std::fs::write(root.join(file), format!("{n} ")).unwrap();
            }
        })
    };
    let mut layers: Vec<_> = (0..127).map(make).collect();
    layers.push(bench.busybox.clone());
    let sandbox = bench.sandbox().await;
    let script = "for n in $(seq 0 126); do set -- $@ /pair$n /own$n; done; cat /all $@ /pair127";
    let paths: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let spec = bench.container("many", script, &paths);
    let container = sandbox.create_container("many".parse().unwrap(), spec).await.unwrap();
    container.start().await.unwrap();
    // pair n is in layers n - 1 and n, of which the first is the upper one.
    let below = |n: usize| format!("{} {n} ", n.saturating_sub(1));
    let want: String = std::iter::once("0 ".to_owned()).chain((0..127).map(below)).collect();
    assert_eq!(output(&container).await, format!("{want}126 "));
    assert_eq!(container.wait().await.unwrap(), ExitStatus(0));
    assert!(container.stop().await.unwrap().is_empty());
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

#[tokio::test]
async fn a_failed_creation_leaves_room_for_the_next() {
    let Some(bench) = Bench::new() else { return };
    let sandbox = bench.sandbox().await;
    let layers = [&*bench.busybox; 4];
    for _ in 0..3 {
        let mut spec = bench.container("c", "true", &layers);
        let mut process = spec.oci.process().clone().unwrap();
        process.set_args(Some(vec!["/bin/frobnicate".to_owned()]));
        spec.oci.set_process(Some(process));
        let error = sandbox.create_container("c".parse().unwrap(), spec).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Agent(_)), "{error:?}");
        assert!(error.left.is_empty(), "{error:?}");
    }
    let good =
        sandbox.create_container("c".parse().unwrap(), bench.container("c", "true", &layers)).await.unwrap();
    good.start().await.unwrap();
    assert_eq!(good.wait().await.unwrap(), ExitStatus(0));
    assert_eq!(good.status().unwrap().state, State::Stopped);
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

/// Containers of the guest from one disk that is plugged for all of them.
struct RealFixture {
    layer: Layer,
    disk: GuestLocation,
}

impl Fixture for RealFixture {
    fn sandbox(&self) -> CreateSandbox {
        CreateSandbox::new("sandbox".parse().unwrap())
    }

    fn container(&self, id: &ContainerId, workload: Workload) -> CreateContainer {
        let plan = ContainerStorage::of_layers(id.clone(), [self.layer.name()], &shell("")).unwrap().plan;
        let plug = DiskPlug { id: "disk0".parse().unwrap(), location: self.disk.clone() };
        let mut spec = shell("");
        let mut process = spec.process().clone().unwrap();
        process.set_args(Some(workload.args().iter().map(|&arg| arg.to_owned()).collect()));
        spec.set_process(Some(process));
        let spec = guest_spec(spec, &plan.rootfs, GuestFeatures::default()).unwrap();
        CreateContainer { storages: plan.resolve(&[plug]).unwrap(), ..CreateContainer::new(id.clone(), spec) }
    }
}

#[tokio::test]
async fn the_agent_of_the_guest_meets_its_obligations() {
    let Some(bench) = Bench::new() else { return };
    let deadline = || Deadline::after(Timing::default().boot);
    let mut spec = bench.machine();
    spec.runtime_dir = HostPath::new(bench.leftovers.runtime_dir()).unwrap();
    let machine = Qemu::default().launch(&spec, deadline()).await.unwrap();
    let layer = Layer::open(&bench.busybox).unwrap();
    let (image, name) = (layer.image().clone(), layer.name().clone());
    let disk = BlockSpec::new("disk0".parse().unwrap(), image, name, Access::ReadOnly);
    let connector = Connector::default();
    let agent = vc_agent::Connect::connect(&connector, machine.agent_address(), deadline()).await.unwrap();
    let disk = machine.plug(&disk.into(), deadline()).await.unwrap();
    let mut met = Vec::new();
    let fixture = RealFixture { layer, disk };
    conformance::all(&agent, &fixture, |name| {
        println!("{name}");
        met.push(name);
    })
    .await;
    assert_eq!(met.len(), conformance::COUNT, "{met:?}");
    // The last obligation ends the sandbox, and the guest powers off.
    machine.exited().await;
    machine.stop(deadline()).await.unwrap();
    bench.leftovers.assert_none();
}
