//! What a container's storage leaves, and how copies follow their source.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{MountBuilder, Spec};
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_agent::{Call, Feature};
use vc_container::{Cause, ContainerSpec, ContainerStorage, Recovered, Sandbox, storage_request};
use vc_hypervisor::fake::FakeHypervisor;
use vc_storage::{DirectVolumes, Mount, MountPolicy, Rootfs, Surroundings};
use vc_types::HostPath;

use crate::bench::{Bench, command, id};

fn container_spec(oci: Spec, mounts: &[Mount]) -> ContainerSpec {
    let request = storage_request(id("web"), Rootfs::of_mounts(mounts).unwrap(), &oci).unwrap();
    let storage = ContainerStorage::prepare(&request, MountPolicy::new(false), &Surroundings::default());
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

/// The driver asks the sandbox of its volume; a failed creation and the end of the sandbox take that back.
#[tokio::test]
async fn a_csi_driver_is_told_which_sandbox_has_its_volume() {
    let mut bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
    bench.spec.state_dir = Some(HostPath::new(bench.path().join("state")).unwrap());
    let (volume, device) = (bench.path().join("csi"), bench.path().join("volume.img"));
    fs::create_dir(&volume).unwrap();
    fs::File::create(&device).unwrap().set_len(1 << 20).unwrap();
    let volumes = DirectVolumes::below(bench.path().join("direct-volumes"));
    let path = HostPath::new(&volume).unwrap();
    let info = serde_json::json!({"volume-type": "block", "device": device, "fstype": "ext4"});
    volumes.add(&path, info.to_string().as_bytes()).unwrap();
    let spec = |id: &str, process: &str| {
        let mut oci = command(process);
        let bind = MountBuilder::default().destination("/data").typ("bind").source(&volume).build().unwrap();
        oci.set_mounts(Some(vec![bind]));
        let rootfs = Rootfs::of_mounts(&[mount("erofs", bench.layer(), &["ro", "loop"])]).unwrap();
        let request = storage_request(id.parse().unwrap(), rootfs, &oci).unwrap();
        let around = Surroundings { direct_volumes: Some(&volumes), ..Surroundings::default() };
        let storage = ContainerStorage::prepare(&request, MountPolicy::new(false), &around).unwrap();
        assert_eq!(storage.plan.direct_volumes, std::slice::from_ref(&path));
        ContainerSpec { oci, storage }
    };
    let sandbox = bench.sandbox().await.unwrap();
    sandbox.create_container(id("web"), spec("web", "missing")).await.unwrap_err();
    assert_eq!(volumes.sandbox(&path).unwrap(), None, "after the failure");
    sandbox.create_container(id("web"), spec("web", "web")).await.unwrap();
    let has = Some(bench.spec.machine.id.clone());
    assert_eq!(volumes.sandbox(&path).unwrap(), has);
    sandbox.create_container(id("side"), spec("side", "missing")).await.unwrap_err();
    assert_eq!(volumes.sandbox(&path).unwrap(), has, "of the other container");

    sandbox.leave().await;
    let (state, connector) = (bench.spec.state_dir.clone().unwrap(), FakeConnector::new(&bench.agent));
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("{recovered:?}") };
    assert_eq!(volumes.sandbox(&path).unwrap(), has);
    sandbox.stop().await.unwrap();
    assert_eq!(volumes.sandbox(&path).unwrap(), None, "after the end of the sandbox");
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
