//! What a container's storage leaves, and how copies follow their source.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{MountBuilder, Spec};
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_agent::{Call, Feature};
use vc_container::{Cause, ContainerSpec, ContainerStorage, Recovered, Sandbox, Step, storage_request};
use vc_hypervisor::fake::FakeHypervisor;
use vc_storage::{DirectVolumes, Mount, MountPolicy, Rootfs, SharedFs, Surroundings};
use vc_types::HostPath;

use crate::bench::{Bench, command, id};
use crate::faulty::{Fault, Faults, FaultyConnector, FaultyHypervisor};

fn container_spec(oci: Spec, mounts: &[Mount]) -> ContainerSpec {
    let request = storage_request(id("web"), Rootfs::of_mounts(mounts).unwrap(), &oci).unwrap();
    let storage =
        ContainerStorage::prepare(&request, MountPolicy::new(SharedFs::None), &Surroundings::default());
    ContainerSpec { oci, storage: storage.unwrap() }
}

fn mount(kind: &str, source: &Path, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { kind: kind.into(), source: source.to_str().unwrap().into(), options }
}

#[tokio::test]
async fn an_image_that_is_made_goes_with_a_failed_creation_and_stays_with_the_container() {
    let bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    let dir = bench.path().join("snapshot");
    fs::create_dir(&dir).unwrap();
    let image = dir.join("rwlayer.img");
    let size = "X-containerd.mkfs.size=16777216";
    let mounts = [
        mount("mkfs/ext4", &image, &["X-containerd.mkfs.fs=ext4", size, "rw", "loop"]),
        mount("erofs", bench.layer(), &["ro", "loop"]),
        mount(
            "format/mkdir/overlay",
            Path::new("overlay"),
            &[
                "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
                "workdir={{ mount 0 }}/work",
                "upperdir={{ mount 0 }}/upper",
                "lowerdir={{ mount 1 }}",
            ],
        ),
    ];
    let failed = sandbox.create_container(id("web"), container_spec(command("missing"), &mounts)).await;
    let failed = failed.unwrap_err();
    assert!(failed.left.is_empty(), "{failed:?}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "neither an image nor a part of one");
    bench.assert_no_container("after the failure");

    let web = sandbox.create_container(id("web"), container_spec(command("web"), &mounts)).await.unwrap();
    assert_eq!(image.metadata().unwrap().len(), 16 << 20);
    assert_eq!(sandbox.held().len(), 2, "the image and the layer");
    web.stop().await.unwrap();
    web.delete().await.unwrap();
    assert_eq!(sandbox.held().len(), 0);
    assert!(image.exists(), "it has what the container wrote");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_plan_that_is_carried_out_too_late_makes_no_image_anew() {
    let bench = Bench::new(FakeHypervisor::default(), FakeAgent::failing_at(NonZeroU32::MAX));
    let sandbox = bench.sandbox().await.unwrap();
    let image = bench.path().join("root.img");
    let options = ["X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=16777216", "rw"];
    let spec = container_spec(command("web"), &[mount("mkfs/ext4", &image, &options)]);
    fs::write(&image, "of another").unwrap();
    sandbox.create_container(id("web"), spec).await.unwrap_err();
    assert_eq!(fs::read_to_string(&image).unwrap(), "of another");
    sandbox.stop().await.unwrap();
}

/// An option that the agent protocol has no word for is sent to no agent that did not say that it knows it.
#[tokio::test]
async fn blobs_are_asked_of_an_agent_that_says_it_knows_them() {
    for knows in [false, true] {
        let agent = if knows { FakeAgent::new().feature(Feature::BlobPartitions) } else { FakeAgent::new() };
        let bench = Bench::new(FakeHypervisor::default(), agent);
        let (metadata, blobs) = bench.layer_with_blobs();
        let blobs: Vec<_> = blobs.iter().map(|blob| format!("device={}", blob.display())).collect();
        let options: Vec<&str> = ["ro", "loop"].into_iter().chain(blobs.iter().map(String::as_str)).collect();
        let mounts = [mount("erofs", &metadata, &options)];
        let sandbox = bench.sandbox().await.unwrap();
        let web = sandbox.create_container(id("web"), container_spec(command("web"), &mounts)).await;
        if knows {
            web.unwrap();
        } else {
            let refusal = web.unwrap_err();
            let wanted = matches!(refusal.cause, Cause::NoFeature("vc.blob-partitions"));
            assert!(wanted && refusal.left.is_empty(), "{refusal:?}");
            bench.assert_no_container("after the refusal");
        }
        sandbox.stop().await.unwrap();
    }
}

/// A volume that a CSI driver has left to the runtime.
struct Csi {
    bench: Bench,
    volumes: DirectVolumes,
    path: HostPath,
    disk: fs::File,
}

impl Csi {
    fn new() -> Self {
        let bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
        let (volume, device) = (bench.path().join("csi"), bench.path().join("volume.img"));
        fs::create_dir(&volume).unwrap();
        let disk = fs::File::create(&device).unwrap();
        disk.set_len(1 << 20).unwrap();
        let volumes = DirectVolumes::below(bench.path().join("direct-volumes"));
        let path = HostPath::new(&volume).unwrap();
        let info = serde_json::json!({"volume-type": "block", "device": device, "fstype": "ext4"});
        volumes.add(&path, info.to_string().as_bytes()).unwrap();
        Self { bench, volumes, path, disk }
    }

    /// A container that has it.
    fn container(&self, name: &str, process: &str) -> ContainerSpec {
        let mut oci = command(process);
        let bind = MountBuilder::default().destination("/data").typ("bind").source(self.path.as_path());
        oci.set_mounts(Some(vec![bind.build().unwrap()]));
        let rootfs = Rootfs::of_mounts(&[mount("erofs", self.bench.layer(), &["ro", "loop"])]).unwrap();
        let request = storage_request(id(name), rootfs, &oci).unwrap();
        let around = Surroundings { direct_volumes: Some(&self.volumes), ..Surroundings::default() };
        let storage = ContainerStorage::prepare(&request, MountPolicy::new(SharedFs::None), &around).unwrap();
        assert_eq!(storage.plan.direct_volumes, std::slice::from_ref(&self.path));
        ContainerSpec { oci, storage }
    }

    /// What the machine takes the size of its disk for.
    fn told(&self) -> Option<u64> {
        let (hypervisor, machine) = (&self.bench.hypervisor, &self.bench.spec.machine.id);
        let disks = hypervisor.machines()[machine].clone();
        // The layer is one, too; it is smaller.
        disks.iter().filter_map(|disk| hypervisor.disk_size(machine, disk)).max()
    }
}

/// The driver asks the sandbox of its volume; a failed creation and the end of the sandbox take that back.
#[tokio::test]
async fn a_csi_driver_is_told_which_sandbox_has_its_volume() {
    let mut csi = Csi::new();
    csi.bench.spec.state_dir = Some(HostPath::new(csi.bench.path().join("state")).unwrap());
    let Csi { bench, volumes, path, disk } = &csi;
    let sandbox = bench.sandbox().await.unwrap();
    sandbox.create_container(id("web"), csi.container("web", "missing")).await.unwrap_err();
    assert_eq!(volumes.sandbox(path).unwrap(), None, "after the failure");
    let unknown = sandbox.volume_stats(path.clone()).await.unwrap_err();
    assert!(matches!(unknown.cause, Cause::NoSuchVolume), "{unknown:?}");
    sandbox.create_container(id("web"), csi.container("web", "web")).await.unwrap();
    let has = Some(bench.spec.machine.id.clone());
    assert_eq!(volumes.sandbox(path).unwrap(), has);
    sandbox.create_container(id("side"), csi.container("side", "missing")).await.unwrap_err();
    assert_eq!(volumes.sandbox(path).unwrap(), has, "of the other container");

    sandbox.leave().await;
    let (state, connector) = (bench.spec.state_dir.clone().unwrap(), FakeConnector::new(&bench.agent));
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("{recovered:?}") };
    assert_eq!(volumes.sandbox(path).unwrap(), has);
    // The next owner knows the volume, too.
    disk.set_len(2 << 20).unwrap();
    sandbox.resize_volume(path.clone(), 2 << 20).await.unwrap();
    assert_eq!(sandbox.volume_stats(path.clone()).await.unwrap().bytes.unwrap().total, 2 << 20);
    sandbox.stop().await.unwrap();
    assert_eq!(volumes.sandbox(path).unwrap(), None, "after the end of the sandbox");
}

#[tokio::test(start_paused = true)]
async fn a_volume_grows_after_its_disk_and_whichever_call_failed_before() {
    for fault in Fault::PASSING {
        for (n, grown) in [(1, "grow a disk"), (2, "ResizeVolume")] {
            let (csi, faults) = (Csi::new(), Faults::default());
            let hypervisor = FaultyHypervisor::new(csi.bench.hypervisor.clone(), &faults);
            let connector = FaultyConnector::new(FakeConnector::new(&csi.bench.agent), &faults);
            let sandbox = Sandbox::create(&hypervisor, &connector, csi.bench.spec.clone()).await.unwrap();
            let web = sandbox.create_container(id("web"), csi.container("web", "web")).await.unwrap();
            let early = sandbox.resize_volume(csi.path.clone(), 2 << 20).await.unwrap_err();
            assert!(matches!(early.cause, Cause::SmallDisk { bytes: 0x10_0000 }), "{early:?}");
            csi.disk.set_len(3 << 20).unwrap();
            faults.plan(n, fault);
            let failed = sandbox.resize_volume(csi.path.clone(), 2 << 20).await.unwrap_err();
            assert!(matches!(failed.step, Step::GrowVolume(_)) && failed.left.is_empty(), "{failed:?}");
            assert!(faults.met().unwrap().contains(grown), "{:?}", faults.met());
            faults.heal();
            sandbox.resize_volume(csi.path.clone(), 2 << 20).await.unwrap();
            // All of the disk is there, and as much of it is used as was asked for.
            assert_eq!(csi.told(), Some(3 << 20), "{fault:?}");
            let stats = sandbox.volume_stats(csi.path.clone()).await.unwrap();
            assert_eq!(stats.bytes.unwrap().total, 2 << 20, "{fault:?}");
            web.stop().await.unwrap();
            web.delete().await.unwrap();
            let gone = sandbox.volume_stats(csi.path.clone()).await.unwrap_err();
            assert!(matches!(gone.cause, Cause::NoSuchVolume), "{gone:?}");
            sandbox.stop().await.unwrap();
        }
    }
}

/// Puts a value into a config map as the kubelet does.
fn put(map: &Path, version: &str) {
    let data = map.join(format!("..{version}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("key"), version).unwrap();
    symlink(format!("..{version}"), map.join("..data_tmp")).unwrap();
    fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
    if !map.join("key").is_symlink() {
        symlink("..data/key", map.join("key")).unwrap();
    }
}

/// Waits until the guest got this many files whose path ends so; gives what it got, in order.
async fn copied(agent: &FakeAgent, end: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let calls = agent.calls().into_iter().filter(|(call, _)| *call == Call::CopyFile);
        let paths: Vec<String> = calls.map(|(_, path)| path).collect();
        if paths.iter().filter(|path| path.ends_with(end)).count() == count {
            return paths;
        }
        assert!(Instant::now() < deadline, "{count} times {end} in {paths:?}");
        tokio::task::yield_now().await;
    }
}

/// Where the last of these is.
fn last(paths: &[String], end: &str) -> usize {
    paths.iter().rposition(|path| path.ends_with(end)).unwrap()
}

#[tokio::test]
async fn a_config_map_is_copied_again_when_it_is_replaced_also_by_the_next_owner() {
    let mut bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
    bench.spec.state_dir = Some(HostPath::new(bench.path().join("state")).unwrap());
    let map = bench.path().join("kubernetes.io~configmap/map");
    put(&map, "one");
    let mut oci = command("web");
    let mut bind = MountBuilder::default().destination("/map").typ("bind").source(&map).build().unwrap();
    bind.set_options(Some(vec!["rbind".into(), "ro".into()]));
    oci.set_mounts(Some(vec![bind]));
    let spec = container_spec(oci, &[mount("erofs", bench.layer(), &["ro", "loop"])]);
    assert!(spec.storage.plan.volume("/map").unwrap().as_str().contains("web"));
    assert_eq!(spec.storage.plan.volume("/other"), None);

    let sandbox = bench.sandbox().await.unwrap();
    sandbox.create_container(id("web"), spec).await.unwrap();
    let first = copied(&bench.agent, "/..data", 1).await;
    assert!(last(&first, "/..one/key") < last(&first, "/..data"), "{first:?}");
    put(&map, "two");
    let second = copied(&bench.agent, "/..data", 2).await;
    assert!(last(&second, "/..two/key") < last(&second, "/..data"), "{second:?}");

    sandbox.leave().await;
    // Nobody is there to see it.
    put(&map, "three");
    let (state, connector) = (bench.spec.state_dir.clone().unwrap(), FakeConnector::new(&bench.agent));
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("{recovered:?}") };
    copied(&bench.agent, "/..three/key", 1).await;
    copied(&bench.agent, "/..data", 3).await;
    put(&map, "four");
    copied(&bench.agent, "/..four/key", 1).await;
    sandbox.container(&id("web")).unwrap().stop().await.unwrap();
    sandbox.stop().await.unwrap();
}
