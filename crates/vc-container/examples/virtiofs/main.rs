//! `virtiofs [--rounds N] [--accel tcg]`: reading and writing through a shared directory as a container has it, next to
//! the same virtiofsd started by hand: both in one machine, in turn. `cargo xtask bench virtiofs` builds what this
//! needs, and runs it. As root.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../wire/series.rs"]
mod series;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{MountBuilder, Process, Spec, SpecBuilder};
use vc_agent::{
    Client, Connect, Connector, Containers, CreateContainer, CreateSandbox, ExecProcess, Guest, Processes,
    Storage, StorageDriver,
};
use vc_container::{ContainerStorage, GuestFeatures, guest_spec};
use vc_device::{QueueSize, VhostUserFsSpec};
use vc_hypervisor::{Accelerator, Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::Qemu;
use vc_share::{Bind, Server, ServerConfig, ServerKind, SharedDir, find_virtiofsd};
use vc_storage::DiskPlug;
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{ContainerId, Deadline, GuestPath, HostPath};

use series::{Series, compare, heading};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How much is read and written at a time, in MiB: far more than an exec takes.
const SIZE: usize = 64;

/// Where the guest mounts the two, and where the container has them.
const OURS: [&str; 3] = ["ours", "/run/bench/ours", "/ours"];
const HAND: [&str; 3] = ["hand", "/run/bench/hand", "/hand"];

/// Many times what anything here takes under emulation on a busy machine.
fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (mut rounds, mut accelerator) = (9, Accelerator::Tcg);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--accel" => accelerator = arguments.next().ok_or("--accel needs a name")?.parse()?,
            other => return Err(format!("{other:?} is not known").into()),
        }
    }
    // In memory, so that no disk has a say.
    let files = tempfile::tempdir_in("/dev/shm")?;
    let leftovers = Leftovers::new();
    let directory = leftovers.runtime_dir();
    let path = |name: &str| HostPath::new(directory.join(name));

    let mut shared = SharedDir::create(&path("share")?)?;
    shared.bind(&Bind::new("data".parse()?, HostPath::new(files.path().canonicalize()?)?))?;
    let config = ServerConfig::new(ServerKind::Virtiofsd);
    let ours = Server::start(&config, &shared.served(), &path("ours.sock")?, deadline()).await?;
    let mut hand = by_hand(files.path(), &directory.join("hand.sock")).await?;
    let bed = Bed::make(directory, accelerator).await;
    let measured = match &bed {
        Ok(bed) => measure(bed, files.path(), rounds).await,
        Err(_) => Ok(()),
    };
    let ended = match bed {
        Ok(bed) => bed.end().await,
        Err(error) => Err(error),
    };
    // It ends with the machine; if there never was one, it waits for it.
    let _ = hand.kill();
    hand.wait()?;
    ours.stop(deadline()).await?;
    shared.remove().map_err(|mut errors| errors.remove(0))?;
    measured.and(ended)
}

/// The same program, as its manual has it.
async fn by_hand(directory: &Path, socket: &Path) -> Result<Child> {
    let program = find_virtiofsd()?;
    let mut command = Command::new(&program);
    let said = Command::new(&program).arg("--version").output()?.stdout;
    if String::from_utf8_lossy(&said).starts_with("virtiofsd version") {
        command.arg("-f").arg(format!("--socket-path={}", socket.display()));
        command.arg("-o").arg(format!("source={},cache=auto", directory.display()));
    } else {
        command.arg(format!("--socket-path={}", socket.display()));
        command.arg(format!("--shared-dir={}", directory.display())).arg("--cache=auto");
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let end = deadline();
    while !socket.exists() {
        if end.is_over() {
            return Err("the virtiofsd by hand makes no socket".into());
        }
        tokio::task::yield_now().await;
    }
    Ok(child)
}

/// A machine with a container that has both directories.
struct Bed {
    machine: <Qemu as Hypervisor>::Machine,
    agent: Client,
    container: ContainerId,
    process: Process,
    _layers: Layers,
}

impl Bed {
    async fn make(directory: &Path, accelerator: Accelerator) -> Result<Self> {
        let image = GuestImage::find().ok_or("there is no guest image; run `cargo xtask guest`")?;
        let layers = Layers::new();
        let (kernel, initrd) = (HostPath::new(&image.kernel)?, HostPath::new(&image.initrd)?);
        let runtime_dir = HostPath::new(directory)?;
        let mut spec = MachineSpec::new("bench".parse()?, kernel, initrd, runtime_dir);
        spec.accelerator = accelerator;
        spec.memory = "512M".parse()?;
        let machine = Qemu::default().launch(&spec, deadline()).await?;
        let agent = Connector::default().connect(machine.agent_address(), deadline()).await?;
        agent.create_sandbox(&CreateSandbox::new("bench".parse()?), deadline()).await?;

        let container: ContainerId = "bed".parse()?;
        let layer = [layers.busybox()];
        let storage = ContainerStorage::of_layers(container.clone(), &layer, &Spec::default())?;
        let mut plugged = Vec::new();
        for (number, disk) in storage.plan.disks.iter().enumerate() {
            let id: vc_types::DeviceId = format!("disk{number}").parse()?;
            let device = storage.images.device(disk, id.clone(), None)?;
            let location = machine.plug(&device, deadline()).await?;
            plugged.push(DiskPlug { id, location });
        }
        let mut storages = storage.plan.resolve(&plugged)?;
        let mut mounts = Vec::new();
        for [tag, at, destination] in [HAND, OURS] {
            let share = VhostUserFsSpec {
                id: tag.parse()?,
                socket: HostPath::new(directory.join(format!("{tag}.sock")))?,
                tag: tag.parse()?,
                queue_size: QueueSize::new(1024)?,
            };
            machine.plug(&share.into(), deadline()).await?;
            let at_in_guest = GuestPath::new(at)?;
            storages.push(Storage::new(StorageDriver::VirtioFs, tag, "virtiofs", at_in_guest));
            // Ours is bound below the top of what is served.
            let source = if tag == "ours" { format!("{at}/data") } else { at.to_owned() };
            let mut mount =
                MountBuilder::default().destination(destination).typ("bind").source(source).build()?;
            mount.set_options(Some(vec!["rbind".to_owned()]));
            mounts.push(mount);
        }
        let process = process(&["sleep", "1000000"]);
        let oci = SpecBuilder::default().process(process.clone()).mounts(mounts).build()?;
        let oci = guest_spec(oci, &storage.plan.rootfs, GuestFeatures::default())?;
        let request = CreateContainer { storages, ..CreateContainer::new(container.clone(), oci) };
        agent.create_container(&request, deadline()).await?;
        agent.start_container(&container, deadline()).await?;
        Ok(Self { machine, agent, container, process, _layers: layers })
    }

    /// Runs `arguments` in the container, as the process called `name`; MiB/s, for [`SIZE`].
    async fn speed(&self, name: &str, arguments: &[&str]) -> Result<f64> {
        let mut process = self.process.clone();
        process.set_args(Some(arguments.iter().map(|&argument| argument.to_owned()).collect()));
        let request = ExecProcess { container: self.container.clone(), exec: name.parse()?, process };
        let start = Instant::now();
        self.agent.exec(&request, deadline()).await?;
        let status = self.agent.wait(&request.reference()).await?;
        let took = start.elapsed().as_secs_f64();
        if !status.is_success() {
            return Err(format!("{arguments:?} ended with {status:?}").into());
        }
        Ok(SIZE as f64 / took)
    }

    async fn end(self) -> Result<()> {
        self.agent.destroy_sandbox(deadline()).await?;
        self.machine.stop(deadline()).await?;
        Ok(())
    }
}

async fn measure(bed: &Bed, files: &Path, rounds: usize) -> Result<()> {
    let [mut read_hand, mut read_ours, mut write_hand, mut write_ours]: [Series; 4] = Default::default();
    let count = format!("count={SIZE}");
    // The first one is slower than all others: its program is read from the disk.
    for round in 0..=rounds {
        // Who comes first changes.
        let sides = if round % 2 == 0 { [OURS, HAND] } else { [HAND, OURS] };
        for [tag, _, at] in sides {
            // A file that the guest has never seen.
            let name = format!("{tag}{round}");
            fs::write(files.join(&name), vec![0x5a; SIZE << 20])?;
            let from = format!("if={at}/{name}");
            let read = bed.speed(&format!("r{name}"), &["dd", &from, "of=/dev/null", "bs=1M"]).await?;
            fs::remove_file(files.join(&name))?;
            // By another name: the guest remembers the first for a second.
            let name = format!("new-{name}");
            let to = format!("of={at}/{name}");
            let write = ["dd", "if=/dev/zero", &to, "bs=1M", &count, "conv=fsync"];
            let write = bed.speed(&format!("w{name}"), &write).await?;
            fs::remove_file(files.join(&name))?;
            let (reads, writes) = match tag {
                "ours" => (&mut read_ours, &mut write_ours),
                _ => (&mut read_hand, &mut write_hand),
            };
            if round > 0 {
                reads.push(read);
                writes.push(write);
            }
        }
    }
    heading(&format!("{SIZE} MiB through virtio-fs"), rounds);
    compare("MiB/s", ("read, virtiofsd by hand", &read_hand), ("read, as a container has it", &read_ours));
    compare(
        "MiB/s",
        ("write, virtiofsd by hand", &write_hand),
        ("write, as a container has it", &write_ours),
    );
    Ok(())
}

fn process(arguments: &[&str]) -> Process {
    let mut process = Process::default();
    process.set_args(Some(arguments.iter().map(|&argument| argument.to_owned()).collect()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    process
}
