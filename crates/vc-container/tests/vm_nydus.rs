//! Containers of one machine whose roots a real nydusd serves: they come and go, also when their owner does.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{MountBuilder, RootBuilder};
use vc_agent::{Connector, ExitStatus};
use vc_container::{
    Container, ContainerSpec, ContainerStorage, Recovered, Sandbox, SandboxSpec, Sharing, Stream, Timing,
    storage_request,
};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_storage::{MountPolicy, NydusExtra, Rootfs, SharedFs, Surroundings};
use vc_tests::{GuestImage, Layers, Leftovers, Nydus, Rafs, fill_with_busybox, shell};
use vc_types::{ContainerId, HostPath};

/// More than the guest reads ahead.
const LARGE: usize = 3 << 20;

struct Bench {
    nydus: Nydus,
    guest: GuestImage,
    files: Layers,
    leftovers: Leftovers,
}

impl Bench {
    fn new() -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let (nydus, guest) = (Nydus::find()?, GuestImage::find()?);
        Some(Self { nydus, guest, files: Layers::new(), leftovers: Leftovers::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn spec(&self) -> SandboxSpec {
        let below = |name| host_path(self.leftovers.runtime_dir().join(name));
        let (kernel, initrd) = (host_path(&self.guest.kernel), host_path(&self.guest.initrd));
        let mut machine = MachineSpec::new("box".parse().unwrap(), kernel, initrd, below("box"));
        machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
        let sharing = Sharing { shared_fs: SharedFs::Nydus, program: Some(self.nydus.nydusd.clone()) };
        SandboxSpec { sharing, state_dir: Some(below("state")), ..SandboxSpec::new(machine) }
    }

    /// An image with busybox and a file that tells it from others.
    fn image(&self, name: &str) -> Rafs {
        let tree = self.path(&format!("{name}.tree"));
        fs::create_dir(&tree).unwrap();
        fill_with_busybox(&tree);
        fs::write(tree.join("name"), format!("{name}\n")).unwrap();
        fs::write(tree.join("large"), vec![7; LARGE]).unwrap();
        self.nydus.image(&tree, &self.path(name))
    }

    /// A container of this image, with a snapshot and a directory of the host for it, that runs a script.
    async fn started(&self, sandbox: &Sandbox, name: &str, image: &Rafs, script: &str) -> Container {
        let of_image = image.bootstrap.parent().unwrap().file_name().unwrap().display();
        let names = [format!("{name}-{of_image}.snapshot"), format!("shared-{of_image}")];
        let [snapshot, shared] = names.map(|name| self.path(&name));
        for directory in [&snapshot.join("fs"), &snapshot.join("work"), &shared] {
            fs::create_dir_all(directory).unwrap();
        }
        let mut oci = shell(script);
        let data = MountBuilder::default().destination("/shared").typ("bind").source(&shared);
        let data = data.options(vec!["rbind".to_owned(), "rw".to_owned()]).build().unwrap();
        let mounts = oci.mounts().iter().flatten().cloned().chain([data]).collect();
        let root = RootBuilder::default().path("rootfs").readonly(false).build().unwrap();
        oci.set_mounts(Some(mounts)).set_root(Some(root));
        let rootfs = Rootfs::Nydus(NydusExtra {
            source: host_path(&image.bootstrap),
            config: image.config.clone(),
            snapshot_dir: host_path(snapshot),
        });
        let id: ContainerId = name.parse().unwrap();
        let request = storage_request(id.clone(), rootfs, &oci).unwrap();
        let policy = MountPolicy::new(SharedFs::Nydus);
        let storage = ContainerStorage::prepare(&request, policy, &Surroundings::default()).unwrap();
        let container = sandbox.create_container(id, ContainerSpec { oci, storage }).await;
        let container = container.unwrap_or_else(|error| panic!("{name} of {of_image}: {error:?}"));
        container.start().await.unwrap();
        container
    }
}

fn host_path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path.as_ref()).unwrap()
}

/// What it says until it has said as much.
async fn said(container: &Container, most: usize) -> String {
    let mut all = Vec::new();
    while all.len() < most {
        let some = container.read(Stream::Stdout, 4096).await.unwrap();
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    String::from_utf8(all).unwrap()
}

async fn gone(container: &Container) {
    let left = container.stop().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    container.delete().await.unwrap();
}

#[tokio::test]
async fn containers_of_images_come_and_go_in_one_machine_whoever_owns_it() {
    let Some(bench) = Bench::new() else { return };
    let (first, second) = (bench.image("first"), bench.image("second"));
    let sandbox = Sandbox::create(&Qemu::default(), &Connector::default(), bench.spec()).await.unwrap();
    let stays = bench.started(&sandbox, "stays", &first, "cat /name; read go; wc -c < /large").await;
    assert_eq!(said(&stays, 6).await, "first\n");
    // By one name, with one image and with another: the guest must not go on with what it has seen there.
    for (image, name) in [(&first, "first\n"), (&second, "second\n"), (&first, "first\n")] {
        let shared = bench.path(&format!("shared-{}", name.trim()));
        let script = "exec 2>&1; cat /name; cp /name /shared/seen; echo x > /written; exit 3";
        let web = bench.started(&sandbox, "web", image, script).await;
        assert_eq!(said(&web, 100).await, name);
        assert_eq!(web.wait().await.unwrap(), ExitStatus(3));
        assert_eq!(fs::read_to_string(shared.join("seen")).unwrap(), name);
        let written = bench.path(&format!("web-{}.snapshot/fs/written", name.trim()));
        assert_eq!(fs::read_to_string(written).unwrap(), "x\n");
        gone(&web).await;
    }
    sandbox.leave().await;

    let state = bench.spec().state_dir.unwrap();
    let recovered =
        Sandbox::recover(&Qemu::default(), &Connector::at_once(), &state, Timing::default()).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("all is there") };
    let stays = sandbox.container(&"stays".parse().unwrap()).unwrap();
    // It reads what it has not read before.
    stays.write_stdin(b"go\n".into()).await.unwrap();
    assert_eq!(said(&stays, 100).await, format!("{LARGE}\n"));
    assert_eq!(stays.wait().await.unwrap(), ExitStatus(0));
    let web = bench.started(&sandbox, "web", &second, "cat /name /written 2>&1").await;
    assert_eq!(said(&web, 100).await, "second\nx\n");
    assert_eq!(web.wait().await.unwrap(), ExitStatus(0));
    gone(&stays).await;
    gone(&web).await;
    sandbox.stop().await.unwrap();
    bench.leftovers.assert_none();
}
