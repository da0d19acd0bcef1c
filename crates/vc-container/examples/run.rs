//! A container's whole life on the fakes of the ports: what the orchestrator asks of whom, and when.
//!
//! `run IMAGE`: IMAGE is any EROFS image, since a layer is checked before it is used.
#![expect(clippy::print_stdout, reason = "an example that is run by hand")]

use std::error::Error;

use oci_spec::runtime::Spec;
use vc_agent::ExitStatus;
use vc_agent::fake::{FakeAgent, FakeConnector, Program};
use vc_container::{ContainerSpec, ContainerStorage, Sandbox, SandboxSpec, Stream};
use vc_hypervisor::MachineSpec;
use vc_hypervisor::fake::FakeHypervisor;
use vc_types::HostPath;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args().nth(1).ok_or("usage: run IMAGE")?;
    let dir = tempfile::tempdir()?;
    let path = HostPath::new(dir.path().join("box"))?;
    let machine = MachineSpec::new("box".parse()?, path.clone(), path.clone(), path);
    let prints = Program::Prints { stdout: b"hello\n".into(), stderr: Vec::new(), status: ExitStatus(7) };
    // What `Spec::default()` runs.
    let agent = FakeAgent::new().program("sh", prints);
    let hypervisor = FakeHypervisor::default();
    let spec = SandboxSpec::new(machine);

    let sandbox = Sandbox::create(&hypervisor, &FakeConnector::new(&agent), spec).await?;
    let id: vc_types::ContainerId = "web".parse()?;
    let oci = Spec::default();
    let storage = ContainerStorage::of_layers(id.clone(), [image], &oci)?;
    let container = sandbox.create_container(id, ContainerSpec { oci, storage }).await?;
    println!("plugged: {:?}", hypervisor.machines());
    container.start().await?;
    print!("printed: {}", String::from_utf8_lossy(&container.read(Stream::Stdout, 4096).await?));
    println!("ended with: {:?}", container.wait().await?);
    println!("left behind by the stop: {:?}", container.stop().await?);
    container.delete().await?;
    println!("the agent was asked for: {:?}", agent.calls());
    sandbox.stop().await.map_err(|left| format!("left behind: {left:?}"))?;
    println!("machines: {:?}", hypervisor.machines());
    Ok(())
}
