//! A sandbox on the fakes, and a look at what is left of it.

use std::path::PathBuf;

use oci_spec::runtime::{Process, ProcessBuilder, Spec, SpecBuilder};
use vc_agent::fake::{FakeAgent, FakeConnector, Program};
use vc_container::{Container, ContainerSpec, ContainerStorage, OperationError, Sandbox, SandboxSpec};
use vc_hypervisor::MachineSpec;
use vc_hypervisor::fake::FakeHypervisor;
use vc_tests::Layers;
use vc_types::{ContainerId, DeviceId, HostPath, SandboxId};

pub(crate) struct Bench {
    pub(crate) hypervisor: FakeHypervisor,
    pub(crate) agent: FakeAgent,
    pub(crate) spec: SandboxSpec,
    layers: Vec<PathBuf>,
    // Holds the images and the sandbox's directory.
    files: Layers,
}

impl Bench {
    pub(crate) fn new(hypervisor: FakeHypervisor, agent: FakeAgent) -> Self {
        let agent = agent.program("missing", Program::Missing);
        let files = Layers::new();
        let layers = ["top", "base"].map(|name| files.layer(name, |_| {}));
        let path = |name| HostPath::new(files.path().join(name)).unwrap();
        let machine = MachineSpec::new("box".parse().unwrap(), path("vmlinux"), path("initrd"), path("run"));
        let spec = SandboxSpec::new(machine);
        Self { hypervisor, agent, spec, layers: layers.into(), files }
    }

    /// The image of a layer.
    pub(crate) fn layer(&self) -> &std::path::Path {
        &self.layers[0]
    }

    /// An image with metadata only, and those with its data.
    pub(crate) fn layer_with_blobs(&self) -> (PathBuf, [PathBuf; 2]) {
        self.files.layer_with_blobs("merged", |root| {
            let data: Vec<u8> = (0_u32..32 << 10).flat_map(u32::to_le_bytes).collect();
            std::fs::write(root.join("data"), data).unwrap();
        })
    }

    /// A directory for what the test needs, gone with the bench.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.files.path()
    }

    pub(crate) async fn sandbox(&self) -> Result<Sandbox, OperationError> {
        Sandbox::create(&self.hypervisor, &FakeConnector::new(&self.agent), self.spec.clone()).await
    }

    pub(crate) async fn container(&self, sandbox: &Sandbox, name: &str) -> Result<Container, OperationError> {
        self.container_of(sandbox, name, command(name)).await
    }

    /// A container of another specification.
    pub(crate) async fn container_of(
        &self,
        sandbox: &Sandbox,
        name: &str,
        oci: Spec,
    ) -> Result<Container, OperationError> {
        sandbox.create_container(id(name), container_spec(name, oci, &self.layers)).await
    }

    /// What the container of this name needs is done while the guest boots.
    pub(crate) fn ahead(&mut self, name: &str) {
        self.spec.ahead = Some(container_spec(name, command(name), &self.layers).storage);
    }

    /// A container with a layer that nobody else has.
    pub(crate) async fn own_container(
        &self,
        sandbox: &Sandbox,
        name: &str,
    ) -> Result<Container, OperationError> {
        let layer = self.files.layer(name, |_| {});
        sandbox.create_container(id(name), container_spec(name, command(name), &[layer])).await
    }

    /// A container whose command is not there, so that its creation fails in the guest.
    pub(crate) async fn missing_command(
        &self,
        sandbox: &Sandbox,
        name: &str,
    ) -> Result<Container, OperationError> {
        let spec = container_spec(name, command("missing"), &self.layers);
        sandbox.create_container(id(name), spec).await
    }

    /// The disks plugged into the machine; none when it does not run.
    pub(crate) fn disks(&self) -> Vec<DeviceId> {
        self.hypervisor.machines().remove(&self.sandbox_id()).unwrap_or_default()
    }

    pub(crate) fn sandbox_id(&self) -> SandboxId {
        self.spec.machine.id.clone()
    }

    /// Asserts that no container is left in machine and guest.
    #[track_caller]
    pub(crate) fn assert_no_container(&self, when: &str) {
        assert_eq!(self.disks(), [], "disks {when}");
        let left = self.agent.left();
        assert!(left.containers.is_empty() && left.mounts.is_empty(), "{when}: {left:?}");
    }

    /// Asserts that nothing of the sandbox is left on the host.
    #[track_caller]
    pub(crate) fn assert_no_sandbox(&self, when: &str) {
        assert!(self.hypervisor.machines().is_empty(), "machines {when}");
        assert!(!self.spec.machine.runtime_dir.as_path().exists(), "directory {when}");
    }
}

pub(crate) fn id(name: &str) -> ContainerId {
    name.parse().unwrap()
}

pub(crate) fn process(name: &str) -> Process {
    ProcessBuilder::default().args(vec![name.to_owned()]).cwd("/").build().unwrap()
}

pub(crate) fn command(name: &str) -> Spec {
    let process = process(name);
    SpecBuilder::default().process(process).build().unwrap()
}

/// A container whose root is these layers.
fn container_spec(name: &str, oci: Spec, layers: &[PathBuf]) -> ContainerSpec {
    let storage = ContainerStorage::of_layers(id(name), layers, &oci).unwrap();
    ContainerSpec { oci, storage }
}
