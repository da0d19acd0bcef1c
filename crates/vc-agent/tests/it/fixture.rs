//! What the conformance suite runs on the fake.

use oci_spec::runtime::{ProcessBuilder, SpecBuilder};
use vc_agent::conformance::{Fixture, Workload};
use vc_agent::fake::{FakeAgent, Program};
use vc_agent::{CreateContainer, CreateSandbox, ExitStatus, Storage, StorageDriver};
use vc_types::{ContainerId, GuestPath};

pub(crate) struct FakeFixture;

impl FakeFixture {
    /// A fake that knows the suite's commands.
    pub(crate) fn agent() -> FakeAgent {
        Workload::ALL.into_iter().fold(FakeAgent::new(), |agent, workload| {
            agent.program(&workload.args().join(" "), program(workload))
        })
    }
}

fn program(workload: Workload) -> Program {
    match workload {
        Workload::Prints => {
            Program::Prints { stdout: b"out".to_vec(), stderr: b"err".to_vec(), status: ExitStatus(7) }
        }
        Workload::Copies => Program::Copies,
        Workload::Waits => Program::Waits,
        Workload::Missing => Program::Missing,
        Workload::NotExecutable => Program::NotExecutable,
        Workload::PrintsFile => Program::PrintsFile(Workload::BOUND.to_owned()),
        Workload::PrintsTime => Program::PrintsTime,
        Workload::PrintsTerminalSize => Program::PrintsTerminalSize,
        Workload::Hogs => Program::Hogs,
    }
}

impl Fixture for FakeFixture {
    fn sandbox(&self) -> CreateSandbox {
        CreateSandbox::new("sandbox".parse().unwrap())
    }

    fn container(&self, id: &ContainerId, workload: Workload) -> CreateContainer {
        let args: Vec<String> = workload.args().iter().map(|&arg| arg.to_owned()).collect();
        let process = ProcessBuilder::default().args(args).terminal(false).build().unwrap();
        let spec = SpecBuilder::default().process(process).build().unwrap();
        let layer = storage(StorageDriver::Block, "/run/layers/base", &["ro"]);
        let root =
            storage(StorageDriver::Overlay, &format!("/run/{id}/rootfs"), &["lowerdir=/run/layers/base"]);
        CreateContainer { storages: vec![layer, root], ..CreateContainer::new(id.clone(), spec) }
    }
}

pub(crate) fn storage(driver: StorageDriver, mount_point: &str, options: &[&str]) -> Storage {
    Storage {
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Storage::new(driver, "05/00", "erofs", GuestPath::new(mount_point).unwrap())
    }
}
