//! A machine with the guest image, and a connection to its agent.

use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{Context, with_duration};
use vc_agent::{Connect, Connector};
use vc_agent_protocol::agent::{self, Storage};
use vc_agent_protocol::agent_ttrpc::AgentServiceClient;
use vc_agent_protocol::oci;
use vc_hypervisor::{Hypervisor, Machine, MachineSpec};
use vc_qemu::{Qemu, QemuConfig, QemuMachine};
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{AgentAddress, Deadline, HostPath};

const PATIENCE: Duration = Duration::from_secs(120);

/// A machine to be: devices that no port has yet are put on QEMU's command line as it is.
pub(crate) struct Plan {
    image: GuestImage,
    pub(crate) layers: Layers,
    pub(crate) busybox: PathBuf,
    leftovers: Leftovers,
    qemu_arguments: Vec<String>,
    pub(crate) kernel_params: Vec<String>,
    pub(crate) vcpus: NonZeroU8,
}

impl Plan {
    pub(crate) fn new() -> Option<Self> {
        let image = GuestImage::find()?;
        let layers = Layers::new();
        let busybox = layers.busybox();
        let (leftovers, vcpus) = (Leftovers::new(), NonZeroU8::MIN);
        let mut plan =
            Self { image, layers, busybox, leftovers, qemu_arguments: vec![], kernel_params: vec![], vcpus };
        // Every container's root: logical unit 0 of the SCSI controller.
        plan.device("virtio-scsi-pci,id=scsi,addr=0x10");
        let busybox = plan.busybox.clone();
        plan.scsi_disk(&busybox, 0);
        Some(plan)
    }

    pub(crate) fn device(&mut self, device: &str) {
        self.qemu_arguments.extend(["-device".to_owned(), device.to_owned()]);
    }

    pub(crate) fn argument(&mut self, name: &str, value: &str) {
        self.qemu_arguments.extend([name.to_owned(), value.to_owned()]);
    }

    fn drive(&mut self, image: &Path, id: &str, writable: bool) {
        let access = if writable { "off" } else { "on" };
        let file = image.display();
        self.argument("-drive", &format!("if=none,id={id},format=raw,readonly={access},file={file}"));
    }

    pub(crate) fn scsi_disk(&mut self, image: &Path, lun: u16) {
        let id = format!("lun{lun}");
        self.drive(image, &id, false);
        self.device(&format!("scsi-hd,bus=scsi.0,drive={id},scsi-id=0,lun={lun}"));
    }

    /// A virtio disk in a slot of the root bus; its PCI path is the slot in hexadecimal digits.
    pub(crate) fn disk(&mut self, image: &Path, slot: u8, writable: bool) {
        let id = format!("disk{slot}");
        self.drive(image, &id, writable);
        self.device(&format!("virtio-blk-pci,drive={id},addr={slot:#x}"));
    }

    pub(crate) fn directory(&self) -> &Path {
        self.layers.path()
    }

    pub(crate) async fn boot(self) -> Guest {
        let script = self.directory().join("qemu");
        let words: Vec<_> = self.qemu_arguments.iter().map(|word| format!("'{word}'")).collect();
        let text = format!("#!/bin/sh\nexec qemu-system-x86_64 \"$@\" {}\n", words.join(" "));
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = |path: &Path| HostPath::new(path).unwrap();
        let id = "guest".parse().unwrap();
        let (kernel, initrd) = (path(&self.image.kernel), path(&self.image.initrd));
        let spec = MachineSpec {
            vcpus: self.vcpus,
            kernel_params: self.kernel_params.clone(),
            hotplug_ports: 1,
            ..MachineSpec::new(id, kernel, initrd, path(self.leftovers.runtime_dir()))
        };
        let qemu = Qemu::new(QemuConfig { program: script, ..QemuConfig::default() });
        let machine = qemu.launch(&spec, Deadline::after(PATIENCE)).await.unwrap();
        // Waits until the agent has announced itself; the calls of the protocol then go by themselves.
        drop(Connector::default().connect(machine.agent_address(), Deadline::after(PATIENCE)).await.unwrap());
        let agent = AgentServiceClient::new(dial(machine.agent_address(), None).await);
        Guest { agent, machine, plan: self }
    }
}

/// A machine whose agent answers.
pub(crate) struct Guest {
    pub(crate) agent: AgentServiceClient,
    machine: QemuMachine,
    pub(crate) plan: Plan,
}

impl Guest {
    /// A stream to another port of the guest.
    pub(crate) async fn connect(&self, port: u32) -> Stream {
        connect(self.machine.agent_address(), Some(port)).await.unwrap()
    }

    /// Runs `script` in a container of busybox, with `storages` mounted and `binds` of the guest's paths in it,
    /// and gives what it wrote.
    pub(crate) async fn shell(
        &self,
        id: &str,
        storages: Vec<Storage>,
        binds: &[&str],
        script: &str,
    ) -> String {
        self.start(id, storages, binds, script).await.unwrap();
        let output = self.output(id).await;
        let wait =
            agent::WaitProcessRequest { container_id: id.into(), exec_id: id.into(), ..Default::default() };
        self.agent.wait_process(deadline(), &wait).await.unwrap();
        let remove = agent::RemoveContainerRequest { container_id: id.into(), ..Default::default() };
        self.agent.remove_container(deadline(), &remove).await.unwrap();
        output
    }

    pub(crate) async fn start(
        &self,
        id: &str,
        storages: Vec<Storage>,
        binds: &[&str],
        script: &str,
    ) -> ttrpc::Result<()> {
        let request = container(id, storages, binds, script);
        self.agent.create_container(deadline(), &request).await?;
        let start = agent::StartContainerRequest { container_id: id.into(), ..Default::default() };
        self.agent.start_container(deadline(), &start).await.map(drop)
    }

    /// All that the container's first process writes, both streams.
    pub(crate) async fn output(&self, id: &str) -> String {
        let request = agent::ReadStreamRequest {
            container_id: id.into(),
            exec_id: id.into(),
            len: 4096,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let data = self.agent.read_stdout(deadline(), &request).await.unwrap().data;
            if data.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(data);
        }
    }

    /// Ends the machine by the agent's own hand, and looks for what it left.
    pub(crate) async fn end(self) {
        self.agent.destroy_sandbox(deadline(), &agent::DestroySandboxRequest::new()).await.unwrap();
        self.machine.exited().await;
        self.machine.stop(Deadline::after(PATIENCE)).await.unwrap();
        self.plan.leftovers.assert_none();
    }
}

pub(crate) fn deadline() -> Context {
    with_duration(PATIENCE)
}

pub(crate) fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> ttrpc::Code {
    match answer.expect_err("the call fails") {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("no status: {other:?}"),
    }
}

pub(crate) fn storage(driver: &str, source: &str, fs_type: &str, options: &[&str], at: &str) -> Storage {
    Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: fs_type.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        mount_point: at.into(),
        ..Default::default()
    }
}

/// A container whose root is busybox below a writable layer in memory.
pub(crate) fn container(
    id: &str,
    mut storages: Vec<Storage>,
    binds: &[&str],
    script: &str,
) -> agent::CreateContainerRequest {
    let root = format!("/run/kata-containers/{id}/rootfs");
    storages.push(storage("scsi", "0:0", "erofs", &["ro"], "/run/layers/busybox"));
    storages.push(storage(
        "overlayfs",
        "overlay",
        "overlay",
        &["lowerdir=/run/layers/busybox", "io.katacontainers.fs-opt.overlay-rw"],
        &root,
    ));
    let mount = |destination: &str, source: &str, kind: &str| oci::Mount {
        destination: destination.into(),
        source: source.into(),
        type_: kind.into(),
        options: if kind == "bind" { vec!["rbind".into(), "rw".into()] } else { vec![] },
        ..Default::default()
    };
    let mut mounts = vec![mount("/proc", "proc", "proc")];
    mounts.extend(binds.iter().map(|path| mount(path, path, "bind")));
    let process = oci::Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        ..Default::default()
    };
    let spec = oci::Spec {
        process: Some(process).into(),
        root: Some(oci::Root { path: root, ..Default::default() }).into(),
        mounts,
        linux: Some(oci::Linux::default()).into(),
        ..Default::default()
    };
    agent::CreateContainerRequest {
        container_id: id.into(),
        exec_id: id.into(),
        storages,
        oci: Some(spec).into(),
        ..Default::default()
    }
}

/// Either end of a vsock: the kernel's, or that of a daemon.
pub(crate) enum Stream {
    Unix(UnixStream),
    Vsock(tokio_vsock::VsockStream),
}

impl Stream {
    pub(crate) async fn read_some(&mut self, buffer: &mut [u8]) -> usize {
        let read = async {
            match self {
                Self::Unix(stream) => stream.read(buffer).await,
                Self::Vsock(stream) => stream.read(buffer).await,
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap()
    }

    pub(crate) async fn write_all(&mut self, bytes: &[u8]) {
        match self {
            Self::Unix(stream) => stream.write_all(bytes).await.unwrap(),
            Self::Vsock(stream) => stream.write_all(bytes).await.unwrap(),
        }
    }
}

async fn dial(address: &AgentAddress, port: Option<u32>) -> Client {
    match connect(address, port).await.unwrap() {
        Stream::Unix(stream) => Client::new(Socket::new(stream)),
        Stream::Vsock(stream) => Client::new(Socket::new(stream)),
    }
}

async fn connect(address: &AgentAddress, port: Option<u32>) -> std::io::Result<Stream> {
    match address {
        AgentAddress::Vsock { cid, port: agent } => {
            let address = tokio_vsock::VsockAddr::new(cid.0, port.unwrap_or(agent.0));
            tokio_vsock::VsockStream::connect(address).await.map(Stream::Vsock)
        }
        AgentAddress::HybridVsock { socket, port: agent } => {
            let mut stream = UnixStream::connect(socket.as_path()).await?;
            stream.write_all(format!("CONNECT {}\n", port.unwrap_or(agent.0)).as_bytes()).await?;
            let mut byte = [0];
            // `OK 1024`: nothing of the stream itself may be read here.
            while byte != *b"\n" {
                stream.read_exact(&mut byte).await?;
            }
            Ok(Stream::Unix(stream))
        }
        AgentAddress::Unix { .. } => unreachable!("a machine has vsock"),
    }
}
