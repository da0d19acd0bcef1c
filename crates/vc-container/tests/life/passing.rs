//! Devices of the host that containers get for themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::json;
use vc_agent::CreateContainer;
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_container::{Cause, PassError, Passing, Recovered, Sandbox};
use vc_device::{Port, Sysfs, VfioMode, VfioPlanError, VfioPolicy};
use vc_hypervisor::fake::FakeHypervisor;
use vc_types::HostPath;

use crate::bench::{Bench, command, id};

/// The IOMMU group of a GPU with its audio function.
pub(crate) const GPU: u32 = 12;
/// The group of a GPU alone.
const OTHER: u32 = 20;
/// The major number of VFIO's group nodes, which the kernel chooses.
const MAJOR: u32 = 240;

/// What the kernel tells of a host: PCI functions bound to VFIO, in their groups. Their numbers are those of an AD102,
/// its audio controller, and an H100 (pci.ids); no such host was captured.
pub(crate) struct Host {
    files: tempfile::TempDir,
}

impl Host {
    pub(crate) fn with_gpus() -> Self {
        let host = Self { files: tempfile::tempdir().unwrap() };
        host.function("0000:3b:00.0", ["0x10de", "0x2684", "0x030000"], GPU);
        host.function("0000:3b:00.1", ["0x10de", "0x22ba", "0x040300"], GPU);
        host.function("0000:81:00.0", ["0x10de", "0x2330", "0x030200"], OTHER);
        host
    }

    fn function(&self, bdf: &str, [vendor, device, class]: [&str; 3], group: u32) {
        let function = self.path("bus/pci/devices").join(bdf);
        fs::create_dir_all(&function).unwrap();
        for (file, text) in [("vendor", vendor), ("device", device), ("class", class)] {
            fs::write(function.join(file), format!("{text}\n")).unwrap();
        }
        fs::write(function.join("config"), [0; 4096]).unwrap();
        symlink("../../drivers/vfio-pci", function.join("driver")).unwrap();
        let groups = self.path("kernel/iommu_groups").join(group.to_string());
        symlink(&groups, function.join("iommu_group")).unwrap();
        fs::create_dir_all(groups.join("devices").join(bdf)).unwrap();
        let node = self.path("dev/char").join(format!("{MAJOR}:{group}"));
        fs::create_dir_all(&node).unwrap();
        fs::write(node.join("uevent"), format!("MAJOR={MAJOR}\nMINOR={group}\nDEVNAME=vfio/{group}\n"))
            .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn passing(&self, mode: VfioMode) -> Passing {
        let policy = VfioPolicy { cold_plug: None, hot_plug: Some(Port::RootPort), mode };
        Passing { policy, sysfs: Sysfs::new(self.files.path()), ..Passing::default() }
    }

    /// A sandbox whose guest drives what is passed.
    pub(crate) fn bench(&self) -> Bench {
        self.bench_with(FakeAgent::new().device_kind("vfio-pci-gk"), VfioMode::GuestKernel)
    }

    fn bench_with(&self, agent: FakeAgent, mode: VfioMode) -> Bench {
        let mut bench = Bench::new(FakeHypervisor::default(), agent);
        bench.spec.passing = self.passing(mode);
        bench
    }
}

/// A container that asks for these groups, as device plugins do.
pub(crate) fn with_nodes(name: &str, groups: &[u32]) -> Spec {
    let node = |path: &str, minor: u32| {
        let (kind, major) = ("c", if path.ends_with("/vfio") { 10 } else { MAJOR });
        json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": 438})
    };
    let rule = |major: u32, minor: u32| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let nodes = groups.iter().map(|group| node(&format!("/dev/vfio/{group}"), *group));
    let devices: Vec<_> = nodes.chain([node("/dev/vfio/vfio", 196)]).collect();
    let rules: Vec<_> =
        groups.iter().map(|group| rule(MAJOR, *group)).chain([rule(10, 196), rule(10, 229)]).collect();
    let mut spec = command(name);
    let linux = json!({"devices": devices, "resources": {"devices": rules}});
    spec.set_linux(Some(serde_json::from_value(linux).unwrap()));
    spec
}

/// As engines have a privileged container: it may use every device.
fn privileged(mut spec: Spec) -> Spec {
    let mut linux = serde_json::to_value(spec.linux()).unwrap();
    let rules = linux["resources"]["devices"].as_array_mut().unwrap();
    rules.insert(0, json!({"allow": true, "access": "rwm"}));
    spec.set_linux(Some(serde_json::from_value(linux).unwrap()));
    spec
}

fn annotation(request: &CreateContainer, key: &str) -> Option<String> {
    request.spec.annotations().as_ref()?.get(key).cloned()
}

fn nodes(request: &CreateContainer) -> Vec<PathBuf> {
    let devices = request.spec.linux().as_ref().unwrap().devices().clone().unwrap_or_default();
    devices.iter().map(|device| device.path().clone()).collect()
}

fn refused(error: &vc_container::OperationError) -> &PassError {
    let Cause::Pass(cause) = &error.cause else { panic!("{error:?}") };
    cause
}

#[tokio::test]
async fn a_group_is_plugged_and_told_by_the_guests_numbers_and_goes_with_its_container() {
    let host = Host::with_gpus();
    let bench = host.bench();
    let sandbox = bench.sandbox().await.unwrap();
    let web = bench.container_of(&sandbox, "web", with_nodes("web", &[GPU])).await.unwrap();
    assert_eq!(bench.disks().len(), 4, "two layers, the GPU and its audio function");
    let request = bench.agent.request(&id("web")).unwrap();
    assert_eq!(annotation(&request, "cdi.k8s.io/vfio12").as_deref(), Some("nvidia.com/gpu=0"));
    assert_eq!(
        nodes(&request),
        [] as [&Path; 0],
        "nodes of the host mean nothing where the guest drives the device"
    );
    let resources: LinuxResources = request.spec.linux().as_ref().unwrap().resources().clone().unwrap();
    let rules: Vec<_> = resources.devices().iter().flatten().map(|rule| rule.minor()).collect();
    assert_eq!(rules, [Some(229)], "only that of another device is left");
    let [device] = &*request.devices else { panic!("{:?}", request.devices) };
    assert_eq!((device.kind.as_str(), device.container_path.as_str()), ("vfio-pci-gk", "/dev/vfio/12"));
    // Behind the ports after those of the layers.
    assert_eq!(device.options, ["0000:3b:00.0=08.2/00", "0000:3b:00.1=08.3/00"]);
    web.stop().await.unwrap();
    bench.assert_no_container("after the stop");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn the_guest_counts_what_all_containers_have() {
    let host = Host::with_gpus();
    let bench = host.bench();
    let sandbox = bench.sandbox().await.unwrap();
    bench.container_of(&sandbox, "first", with_nodes("first", &[OTHER])).await.unwrap();
    bench.container_of(&sandbox, "second", with_nodes("second", &[GPU])).await.unwrap();
    bench.container_of(&sandbox, "shares", with_nodes("shares", &[OTHER])).await.unwrap();
    for (name, key, value) in [
        ("first", "cdi.k8s.io/vfio20", "nvidia.com/gpu=0"),
        ("second", "cdi.k8s.io/vfio12", "nvidia.com/gpu=1"),
        ("shares", "cdi.k8s.io/vfio20", "nvidia.com/gpu=0"),
    ] {
        let request = bench.agent.request(&id(name)).unwrap();
        assert_eq!(annotation(&request, key).as_deref(), Some(value), "{name}");
    }
    let disks = bench.disks().len();
    sandbox.container(&id("first")).unwrap().stop().await.unwrap();
    assert_eq!(bench.disks().len(), disks, "another one uses it");
    sandbox.container(&id("shares")).unwrap().stop().await.unwrap();
    assert_eq!(bench.disks().len(), disks - 1);
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_guest_that_hands_them_on_by_vfio_gets_the_nodes_and_must_know_how() {
    let host = Host::with_gpus();
    for (agent, knows) in [(FakeAgent::new(), false), (FakeAgent::new().device_kind("vfio-pci"), true)] {
        let bench = host.bench_with(agent, VfioMode::Vfio);
        let sandbox = bench.sandbox().await.unwrap();
        let made = bench.container_of(&sandbox, "web", with_nodes("web", &[OTHER])).await;
        if knows {
            made.unwrap();
            let request = bench.agent.request(&id("web")).unwrap();
            assert_eq!(nodes(&request), ["/dev/vfio/20", "/dev/vfio/vfio"].map(PathBuf::from));
            assert_eq!(annotation(&request, "cdi.k8s.io/vfio20"), None);
            assert_eq!(request.devices[0].options, ["0000:81:00.0=08.2/00"]);
        } else {
            let error = made.unwrap_err();
            assert!(matches!(refused(&error), PassError::NoHandler("vfio-pci")), "{error:?}");
            bench.assert_no_container("after the refusal");
        }
        sandbox.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_passed_is_refused_before_anything_is_done() {
    let host = Host::with_gpus();
    let mut none = host.bench();
    none.spec.passing.policy.hot_plug = None;
    let sandbox = none.sandbox().await.unwrap();
    let error = none.container_of(&sandbox, "web", with_nodes("web", &[GPU])).await.unwrap_err();
    assert!(matches!(refused(&error), PassError::Plan(VfioPlanError::NoPort { .. })), "{error:?}");
    // A privileged container has all nodes of the host, and nobody asked for these.
    none.container_of(&sandbox, "privileged", privileged(with_nodes("web", &[GPU]))).await.unwrap();
    let request = none.agent.request(&id("privileged")).unwrap();
    assert_eq!(nodes(&request), Vec::<PathBuf>::new());
    sandbox.stop().await.unwrap();

    let bench = host.bench();
    let sandbox = bench.sandbox().await.unwrap();
    let calls = bench.hypervisor.calls();
    let error = bench.container_of(&sandbox, "web", with_nodes("web", &[99])).await.unwrap_err();
    assert!(matches!(refused(&error), PassError::Plan(VfioPlanError::NoSuchDevice { .. })), "{error:?}");
    let driver = host.path("bus/pci/devices/0000:3b:00.1/driver");
    fs::remove_file(&driver).unwrap();
    symlink("../../drivers/snd_hda_intel", &driver).unwrap();
    let error = bench.container_of(&sandbox, "web", with_nodes("web", &[GPU])).await.unwrap_err();
    assert!(matches!(refused(&error), PassError::Plan(VfioPlanError::MemberNotBound { .. })), "{error:?}");
    assert_eq!(bench.hypervisor.calls(), calls, "nothing was plugged");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn the_pause_container_gets_none() {
    let host = Host::with_gpus();
    let bench = host.bench();
    let sandbox = bench.sandbox().await.unwrap();
    for key in ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"] {
        let mut oci = with_nodes("pause", &[GPU]);
        oci.set_annotations(Some([(key.to_owned(), "sandbox".to_owned())].into()));
        let pause = bench.container_of(&sandbox, "pause", oci).await.unwrap();
        assert_eq!(bench.disks().len(), 2, "its layers");
        let request = bench.agent.request(&id("pause")).unwrap();
        assert_eq!((annotation(&request, "cdi.k8s.io/vfio12"), nodes(&request)), (None, vec![]));
        pause.stop().await.unwrap();
        pause.delete().await.unwrap();
    }
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn the_next_owner_goes_on_with_what_is_passed() {
    let host = Host::with_gpus();
    let mut bench = host.bench();
    let state = HostPath::new(bench.path().join("state")).unwrap();
    bench.spec.state_dir = Some(state.clone());
    let sandbox = bench.sandbox().await.unwrap();
    bench.container_of(&sandbox, "web", with_nodes("web", &[GPU])).await.unwrap();
    sandbox.leave().await;
    let connector = FakeConnector::new(&bench.agent);
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("{recovered:?}") };
    let other = bench.container_of(&sandbox, "other", with_nodes("other", &[OTHER])).await.unwrap();
    let request = bench.agent.request(&id("other")).unwrap();
    assert_eq!(annotation(&request, "cdi.k8s.io/vfio20").as_deref(), Some("nvidia.com/gpu=1"));
    other.stop().await.unwrap();
    sandbox.container(&id("web")).unwrap().stop().await.unwrap();
    bench.assert_no_container("after the stops");
    sandbox.stop().await.unwrap();
}
