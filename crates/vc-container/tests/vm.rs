//! The orchestrator with a real machine, and the agent of the guest held to its obligations.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use vc_agent::conformance::{self, Fixture, Workload};
use vc_agent::{Connector, CreateContainer, CreateSandbox, ExitStatus, Signal};
use vc_container::{
    Cause, Container, ContainerSpec, ContainerStorage, GuestFeatures, Sandbox, SandboxSpec, State, Stream,
    Timing, guest_spec, storage_request,
};
use vc_device::{Access, BlockSpec, GuestLocation};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::Qemu;
use vc_storage::{DirectVolumes, DiskPlug, Layer, MountPolicy, Rootfs, SharedFs, Surroundings};
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

/// Up to four layers are disks of their own, more are partitions of one.
#[tokio::test]
async fn d1_1_3_32_and_128_layers_have_their_content_and_keep_their_order() {
    let Some(bench) = Bench::new() else { return };
    let make = |n: usize| {
        bench.layers.layer(&format!("l{n}"), |root| {
            // The upper of two neighbours wins, and every one is there.
            for file in ["all".to_owned(), format!("pair{n}"), format!("pair{}", n + 1), format!("own{n}")] {
                std::fs::write(root.join(file), format!("{n} ")).unwrap();
            }
        })
    };
    let layers: Vec<_> = (0..127).map(make).collect();
    let sandbox = bench.sandbox().await;
    for count in [1, 3, 32, 128] {
        // The last one is busybox.
        let own = count - 1;
        let paths: Vec<&Path> = layers[..own].iter().chain([&bench.busybox]).map(PathBuf::as_path).collect();
        let script = format!(
            "set -- /etc/passwd /all; for n in $(seq 0 $(({own} - 1))); do set -- $@ /pair$n /own$n; done; \
             cat $@ /pair{own}; ls / | wc -l"
        );
        let spec = bench.container("many", &script, &paths);
        let container = sandbox.create_container("many".parse().unwrap(), spec).await.unwrap();
        container.start().await.unwrap();
        // pair n is in layers n - 1 and n, of which the first is the upper one.
        let below = |n: usize| format!("{} {n} ", n.saturating_sub(1));
        let first = if own > 0 { "0 " } else { "" };
        let last = own.checked_sub(1).map(|last| format!("{last} ")).unwrap_or_default();
        let want: String =
            std::iter::once(first.to_owned()).chain((0..own).map(below)).chain([last]).collect();
        // Six directories are busybox's.
        let files = if own > 0 { 6 + 1 + 2 * own + 1 } else { 6 };
        assert_eq!(output(&container).await, format!("root:x:0:0:root:/:/bin/sh\n{want}{files}\n"));
        assert!(container.stop().await.unwrap().is_empty());
        container.delete().await.unwrap();
    }
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}

/// A volume that a CSI driver has left to the runtime: 8 MiB of ext4.
fn direct_volume(bench: &Bench) -> (DirectVolumes, HostPath, std::fs::File) {
    let path = |name: &str| HostPath::new(bench.layers.path().join(name)).unwrap();
    let (tree, image, volume) = (path("tree"), path("volume.img"), path("csi"));
    std::fs::create_dir(tree.as_path()).unwrap();
    std::fs::write(tree.as_path().join("file"), "there\n").unwrap();
    std::fs::create_dir(volume.as_path()).unwrap();
    let file = std::fs::File::create(image.as_path()).unwrap();
    file.set_len(8 << 20).unwrap();
    let mut mkfs = std::process::Command::new("mkfs.ext4");
    assert!(mkfs.arg("-qd").arg(tree.as_path()).arg(image.as_path()).status().unwrap().success());
    let volumes = DirectVolumes::below(path("direct-volumes").as_path());
    let info = serde_json::json!({"volume-type": "block", "device": image, "fstype": "ext4",
        "metadata": {"fsGroup": "2000", "fsGroupChangePolicy": "OnRootMismatch"}});
    volumes.add(&volume, info.to_string().as_bytes()).unwrap();
    (volumes, volume, file)
}

/// A container that has the volume at `/csi`, and runs `script`.
fn with_volume(bench: &Bench, (volumes, volume): (&DirectVolumes, &HostPath), script: &str) -> ContainerSpec {
    let mut oci = shell(script);
    let mount = oci_spec::runtime::MountBuilder::default().destination("/csi").typ("bind");
    let mut mount = mount.source(volume.as_path()).build().unwrap();
    mount.set_options(Some(vec!["rbind".to_owned()]));
    oci.set_mounts(Some(oci.mounts().clone().unwrap_or_default().into_iter().chain([mount]).collect()));
    let root = vc_storage::Mount {
        kind: "erofs".to_owned(),
        source: bench.busybox.display().to_string(),
        options: vec!["ro".to_owned()],
    };
    let request = storage_request("web".parse().unwrap(), Rootfs::of_mounts(&[root]).unwrap(), &oci).unwrap();
    let around = Surroundings { direct_volumes: Some(volumes), ..Surroundings::default() };
    let storage = ContainerStorage::prepare(&request, MountPolicy::new(SharedFs::None), &around).unwrap();
    ContainerSpec { oci, storage }
}

/// What it writes until a line with `end`.
async fn until_end(container: &Container) -> String {
    let mut seen = String::new();
    while !seen.ends_with("end\n") {
        let some = container.read(Stream::Stdout, 4096).await.unwrap();
        assert!(!some.is_empty(), "it ended with {seen:?}");
        seen += &String::from_utf8(some).unwrap();
    }
    seen
}

/// What a CSI driver asks of a volume that it has left to the runtime, while a container uses it.
async fn a_direct_volume_grows(ports: u8) {
    let Some(bench) = Bench::new() else { return };
    let (volumes, volume, file) = direct_volume(&bench);
    let script = "stat -c '%g %a' /csi /csi/file; head -c 3000000 /dev/zero > /csi/new; stat -c %g /csi/new; \
                  echo end; read line; cat /proc/partitions; echo end; exec sleep 600";
    let spec = with_volume(&bench, (&volumes, &volume), script);
    let mut machine = bench.machine();
    machine.hotplug_ports = ports;
    let sandbox = SandboxSpec::new(machine);
    let sandbox = Sandbox::create(&Qemu::default(), &Connector::default(), sandbox).await.unwrap();
    let web = sandbox.create_container("web".parse().unwrap(), spec).await.unwrap();
    let has = volumes.sandbox(&volume).unwrap();
    assert_eq!(has, Some("box".parse().unwrap()), "its driver knows whom to ask");
    web.start().await.unwrap();
    assert_eq!(until_end(&web).await, "2000 2775\n2000 664\n2000\nend\n");
    let stats = async || sandbox.volume_stats(volume.clone()).await.unwrap().bytes.unwrap();
    let before = stats().await;
    assert!(before.total < 8 << 20 && before.used >= 3_000_000, "{before:?}");
    let early = sandbox.resize_volume(volume.clone(), 24 << 20).await.unwrap_err();
    assert!(matches!(early.cause, Cause::SmallDisk { bytes: 0x80_0000 }), "{early:?}");
    file.set_len(24 << 20).unwrap();
    for _ in 0..2 {
        sandbox.resize_volume(volume.clone(), 24 << 20).await.unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), 24 << 20);
    let after = stats().await;
    assert!(after.total > 16 << 20 && after.used >= 3_000_000, "{after:?}");
    web.write_stdin(b"\n".to_vec()).await.unwrap();
    // The disk itself, in KiB.
    let seen = until_end(&web).await;
    assert!(seen.lines().any(|line| line.split_whitespace().nth(2) == Some("24576")), "{seen}");
    web.stop().await.unwrap();
    sandbox.stop().await.unwrap();
    assert_eq!(volumes.sandbox(&volume).unwrap(), None);
    bench.leftovers.assert_none();
}

#[tokio::test]
async fn a_direct_volume_has_its_group_tells_how_full_it_is_and_grows() {
    a_direct_volume_grows(6).await;
}

/// Whose kernel has to ask for the size.
#[tokio::test]
async fn a_direct_volume_on_a_logical_unit_grows() {
    a_direct_volume_grows(1).await;
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
