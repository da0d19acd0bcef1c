//! A machine with one container that waits, for others to be measured in.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{Process, Spec, SpecBuilder};
use vc_agent::{
    Client, Connect, Connector, Containers, CreateContainer, CreateSandbox, ExecProcess, Guest, ProcessRef,
    Processes,
};
use vc_container::{ContainerStorage, GuestFeatures, guest_spec};
use vc_hypervisor::{Accelerator, Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::Qemu;
use vc_storage::DiskPlug;
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{AgentAddress, ContainerId, Deadline, HostPath};

use crate::Result;

/// Many times what anything here takes under emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    machine: <Qemu as Hypervisor>::Machine,
    pub(crate) agent: Arc<Client>,
    container: ContainerId,
    process: Process,
    // Hold the image and the machine's directory.
    _layers: Layers,
    _leftovers: Leftovers,
}

impl Bed {
    /// Boots the machine; `source` becomes `/source` in the container.
    pub(crate) async fn make(source: &Path, accelerator: Accelerator) -> Result<Self> {
        let image = GuestImage::find().ok_or("there is no guest image; run `cargo xtask guest`")?;
        let (layers, leftovers) = (Layers::new(), Leftovers::new());
        let images = [
            layers.busybox(),
            layers.layer("source", |root| {
                fs::copy(source, root.join("source")).map(drop).expect("the program can be copied");
            }),
        ];
        let directory = HostPath::new(leftovers.runtime_dir())?;
        let (kernel, initrd) = (HostPath::new(&image.kernel)?, HostPath::new(&image.initrd)?);
        let mut spec = MachineSpec::new("bench".parse()?, kernel, initrd, directory);
        spec.accelerator = accelerator;
        spec.hotplug_ports = 4;
        let machine = Qemu::default().launch(&spec, deadline()).await?;
        let agent = Connector::default().connect(machine.agent_address(), deadline()).await?;
        agent.create_sandbox(&CreateSandbox::new("bench".parse()?), deadline()).await?;

        let container: ContainerId = "bed".parse()?;
        let ContainerStorage { plan, images, .. } =
            ContainerStorage::of_layers(container.clone(), &images, &Spec::default())?;
        let mut plugged = Vec::new();
        for (number, disk) in plan.disks.iter().enumerate() {
            let id: vc_types::DeviceId = format!("disk{number}").parse()?;
            let location = machine.plug(&images.device(disk, id.clone(), None)?, deadline()).await?;
            plugged.push(DiskPlug { id, location });
        }
        let process = process(&["sleep", "1000000"]);
        let spec = guest_spec(
            SpecBuilder::default().process(process.clone()).build()?,
            &plan.rootfs,
            GuestFeatures::default(),
        )?;
        let request = CreateContainer {
            storages: plan.resolve(&plugged)?,
            ..CreateContainer::new(container.clone(), spec)
        };
        agent.create_container(&request, deadline()).await?;
        agent.start_container(&container, deadline()).await?;
        let agent = Arc::new(agent);
        Ok(Self { machine, agent, container, process, _layers: layers, _leftovers: leftovers })
    }

    pub(crate) fn address(&self) -> &AgentAddress {
        self.machine.agent_address()
    }

    pub(crate) fn container(&self) -> &ContainerId {
        &self.container
    }

    /// Starts `arguments` in the container, as the process called `name`.
    pub(crate) async fn exec(&self, name: &str, arguments: &[&str]) -> Result<ProcessRef> {
        let mut process = self.process.clone();
        process.set_args(Some(arguments.iter().map(|&argument| argument.to_owned()).collect()));
        let request = ExecProcess { container: self.container.clone(), exec: name.parse()?, process };
        self.agent.exec(&request, deadline()).await?;
        Ok(request.reference())
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.agent.destroy_sandbox(deadline()).await?;
        self.machine.stop(deadline()).await?;
        Ok(())
    }
}

pub(crate) fn deadline() -> Deadline {
    Deadline::after(DEADLINE)
}

fn process(arguments: &[&str]) -> Process {
    let mut process =
        SpecBuilder::default().build().ok().and_then(|spec| spec.process().clone()).unwrap_or_default();
    process.set_args(Some(arguments.iter().map(|&argument| argument.to_owned()).collect()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    process
}
