//! Containers of one machine that have directories of the host: each has its own, also right after another of its name.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{MountBuilder, RootBuilder};
use vc_agent::{Connector, ExitStatus};
use vc_container::{
    Container, ContainerSpec, ContainerStorage, Recovered, Sandbox, SandboxSpec, Stream, Timing,
    storage_request,
};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_storage::{MountPolicy, Rootfs, SharedFs, Surroundings};
use vc_tests::{GuestImage, Layers, Leftovers, fill_with_busybox, shell};
use vc_types::{ContainerId, HostPath};

/// How often one comes after another.
const ROUNDS: usize = 6;

struct Bench {
    guest: GuestImage,
    files: Layers,
    leftovers: Leftovers,
}

impl Bench {
    fn new() -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        Some(Self { guest: GuestImage::find()?, files: Layers::new(), leftovers: Leftovers::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn spec(&self) -> SandboxSpec {
        let below = |name| host_path(self.leftovers.runtime_dir().join(name));
        let (kernel, initrd) = (host_path(&self.guest.kernel), host_path(&self.guest.initrd));
        let mut machine = MachineSpec::new("box".parse().unwrap(), kernel, initrd, below("box"));
        machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
        SandboxSpec { state_dir: Some(below("state")), ..SandboxSpec::new(machine) }
    }

    /// A root, and a directory and a file beside it, that tell which round they are of.
    fn make(&self, round: usize) {
        let (root, data) = (self.path(&format!("root{round}")), self.path(&format!("data{round}")));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&data).unwrap();
        fill_with_busybox(&root);
        for file in [root.join("name"), data.join("name"), self.path(&format!("file{round}"))] {
            fs::write(file, format!("{round}\n")).unwrap();
        }
    }

    /// A container with what is of this round.
    async fn create(&self, sandbox: &Sandbox, (name, round): (&str, usize), script: &str) -> Container {
        let mut oci = shell(script);
        let bound = ["data", "file"].map(|what| {
            let mount = MountBuilder::default().destination(format!("/{what}")).typ("bind");
            let mount = mount.source(self.path(&format!("{what}{round}")));
            mount.options(vec!["rbind".to_owned(), "rw".to_owned()]).build().unwrap()
        });
        let mounts = oci.mounts().iter().flatten().cloned().chain(bound).collect();
        let root = RootBuilder::default().path("rootfs").readonly(false).build().unwrap();
        oci.set_mounts(Some(mounts)).set_root(Some(root));
        let source = host_path(self.path(&format!("root{round}")));
        let rootfs = Rootfs::Directory { source, read_only: false };
        let id: ContainerId = name.parse().unwrap();
        let request = storage_request(id.clone(), rootfs, &oci).unwrap();
        let policy = MountPolicy::new(SharedFs::VirtioFs);
        let storage = ContainerStorage::prepare(&request, policy, &Surroundings::default()).unwrap();
        sandbox.create_container(id, ContainerSpec { oci, storage }).await.unwrap()
    }

    /// One that reads and writes all it has, and goes.
    async fn comes_and_goes(&self, sandbox: &Sandbox, round: usize) {
        let script =
            "cat /name /data/name /file; for to in /written /data/written /file; do echo new > $to; done";
        let web = self.create(sandbox, ("web", round), script).await;
        web.start().await.unwrap();
        assert_eq!(output(&web).await, format!("{round}\n{round}\n{round}\n"));
        assert_eq!(web.wait().await.unwrap(), ExitStatus(0));
        for written in ["root{}/written", "data{}/written", "file{}"] {
            let written = self.path(&written.replace("{}", &round.to_string()));
            assert_eq!(fs::read_to_string(&written).unwrap(), "new\n", "{}", written.display());
        }
        gone(&web).await;
    }
}

fn host_path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path.as_ref()).unwrap()
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

async fn gone(container: &Container) {
    let left = container.stop().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    container.delete().await.unwrap();
}

/// The guest keeps for a while what it has found by a name in the shared directory.
#[tokio::test]
async fn a_container_has_its_own_directories_right_after_another_of_its_name() {
    let Some(bench) = Bench::new() else { return };
    (0..ROUNDS).for_each(|round| bench.make(round));
    let sandbox = Sandbox::create(&Qemu::default(), &Connector::default(), bench.spec()).await.unwrap();
    // With the last one that has something of it, the guest would unmount the shared directory.
    bench.create(&sandbox, ("stays", 0), "true").await;
    for round in 1..ROUNDS - 1 {
        // One that never ran is gone sooner than the guest forgets what it has found.
        gone(&bench.create(&sandbox, ("web", round - 1), "true").await).await;
        bench.comes_and_goes(&sandbox, round).await;
    }
    bench.create(&sandbox, ("web", ROUNDS - 2), "true").await;
    sandbox.leave().await;
    let state = bench.spec().state_dir.unwrap();
    let recovered =
        Sandbox::recover(&Qemu::default(), &Connector::at_once(), &state, Timing::default()).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("all is there") };
    gone(&sandbox.container(&"web".parse().unwrap()).unwrap()).await;
    bench.comes_and_goes(&sandbox, ROUNDS - 1).await;
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}
