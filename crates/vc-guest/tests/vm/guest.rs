//! A machine with the agent, and a disk with busybox.

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VsockAddr, VsockStream};
use ttrpc::Code;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{Context, with_duration};
use vc_agent::{Connect, Connector};
use vc_agent_protocol::agent_ttrpc::AgentServiceClient;
use vc_agent_protocol::{agent, oci};
use vc_device::{Access, BlockSpec, GuestLocation};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::{Qemu, QemuMachine};
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{AgentAddress, Deadline, HostPath};

/// Generous: emulation on a busy machine.
const WAIT: Duration = Duration::from_secs(120);

/// What a container may do when its specification says nothing else: enough for busybox as root.
const CAPABILITIES: [&str; 5] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_KILL"];

/// A running machine, its agent reached twice: streams must not hold up calls.
pub(crate) struct Guest {
    machine: QemuMachine,
    pub(crate) calls: AgentServiceClient,
    pub(crate) streams: AgentServiceClient,
    disk: GuestLocation,
    leftovers: Leftovers,
    _layers: Layers,
}

/// What a process wrote, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

/// A call that must not take longer than anybody would wait.
pub(crate) fn deadline() -> Context {
    with_duration(WAIT)
}

/// The code and text of a refused call.
pub(crate) fn refusal<T: Debug>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("no status: {other:?}"),
    }
}

impl Guest {
    /// Boots a machine; `None` when there is no image.
    pub(crate) async fn boot() -> Option<Self> {
        let image = GuestImage::find()?;
        let (layers, leftovers) = (Layers::new(), Leftovers::new());
        let busybox = layers.busybox();
        let path = |path: &Path| HostPath::new(path).unwrap();
        let (kernel, initrd) = (path(&image.kernel), path(&image.initrd));
        let spec = MachineSpec::new("guest".parse().unwrap(), kernel, initrd, path(leftovers.runtime_dir()));
        let machine = Qemu::default().launch(&spec, Deadline::after(WAIT)).await.unwrap();
        let address = machine.agent_address().clone();
        announced(&address).await;
        drop(Connector::at_once().connect(&address, Deadline::after(WAIT)).await.unwrap());
        let file = std::fs::File::open(&busybox).unwrap().into();
        let disk = BlockSpec::new("busybox".parse().unwrap(), file, path(&busybox), Access::ReadOnly);
        let disk = machine.plug(&disk.into(), Deadline::after(WAIT)).await.unwrap();
        let (calls, streams) = (dial(&address).await, dial(&address).await);
        let guest = Self {
            machine,
            calls: AgentServiceClient::new(calls),
            streams: AgentServiceClient::new(streams),
            disk,
            leftovers,
            _layers: layers,
        };
        let sandbox = agent::CreateSandboxRequest {
            hostname: "guest".into(),
            sandbox_id: "sandbox".into(),
            sandbox_pidns: true,
            ..Default::default()
        };
        guest.calls.create_sandbox(deadline(), &sandbox).await.unwrap();
        Some(guest)
    }

    /// Powers the machine off, and looks that nothing is left of it on the host.
    pub(crate) async fn power_off(self) {
        let _ = self.calls.destroy_sandbox(deadline(), &agent::DestroySandboxRequest::new()).await;
        self.machine.exited().await;
        self.machine.stop(Deadline::after(WAIT)).await.unwrap();
        self.leftovers.assert_none();
    }

    /// The PCI path of the disk with busybox.
    pub(crate) fn disk(&self) -> String {
        self.disk.to_string()
    }

    /// A request for a container called `id`, whose specification is `patch` on top of [`base`].
    pub(crate) fn request(&self, id: &str, patch: &Value) -> agent::CreateContainerRequest {
        let mut spec = base(id);
        merge(&mut spec, patch);
        let spec: Spec = serde_json::from_value(spec).unwrap();
        agent::CreateContainerRequest {
            container_id: id.to_owned(),
            oci: Some(oci::Spec::try_from(&spec).unwrap()).into(),
            storages: self.storages(id),
            ..Default::default()
        }
    }

    /// The layer, which containers share, and an overlay of the container's own.
    fn storages(&self, id: &str) -> Vec<agent::Storage> {
        let layer = "/run/layers/busybox";
        let directory = |name: &str| format!("/run/c/{id}/{name}");
        let make = |name| format!("io.katacontainers.volume.overlayfs.create_directory={}", directory(name));
        let disk = agent::Storage {
            driver: "blk".into(),
            source: self.disk.to_string(),
            fstype: "erofs".into(),
            options: vec!["ro".into()],
            mount_point: layer.into(),
            ..Default::default()
        };
        let overlay = agent::Storage {
            driver: "overlayfs".into(),
            driver_options: vec![make("upper"), make("work")],
            source: "overlay".into(),
            fstype: "overlay".into(),
            options: vec![
                format!("lowerdir={layer}"),
                format!("upperdir={}", directory("upper")),
                format!("workdir={}", directory("work")),
            ],
            mount_point: rootfs(id),
            ..Default::default()
        };
        vec![disk, overlay]
    }

    /// Creates and starts a container.
    pub(crate) async fn start(&self, id: &str, patch: &Value) {
        let request = self.request(id, patch);
        self.calls.create_container(deadline(), &request).await.unwrap();
        let start = agent::StartContainerRequest { container_id: id.into(), ..Default::default() };
        self.calls.start_container(deadline(), &start).await.unwrap();
    }

    /// Creates, starts and removes a container; what it said in between.
    pub(crate) async fn run(&self, id: &str, patch: &Value) -> Outcome {
        self.start(id, patch).await;
        let outcome = self.outcome(id, id).await;
        self.remove(id).await;
        outcome
    }

    /// Starts a process with the parts of `process` on top of [`base`]'s.
    pub(crate) async fn exec(&self, id: &str, exec: &str, process: &Value) -> ttrpc::Result<agent::Empty> {
        let mut whole = base(id)["process"].take();
        merge(&mut whole, process);
        let process: Process = serde_json::from_value(whole).unwrap();
        let request = agent::ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            process: Some(oci::Process::try_from(&process).unwrap()).into(),
            ..Default::default()
        };
        self.calls.exec_process(deadline(), &request).await
    }

    /// What a shell command in a running container says.
    pub(crate) async fn sh(&self, id: &str, exec: &str, script: &str) -> Outcome {
        self.exec(id, exec, &json!({"args": ["sh", "-c", script]})).await.unwrap();
        self.outcome(id, exec).await
    }

    /// Reads both streams to their end and waits for the exit status.
    pub(crate) async fn outcome(&self, id: &str, exec: &str) -> Outcome {
        let (stdout, stderr) = tokio::join!(self.read(id, exec, false), self.read(id, exec, true));
        Outcome { stdout, stderr, status: self.wait(id, exec).await }
    }

    /// The exit status.
    pub(crate) async fn wait(&self, id: &str, exec: &str) -> i32 {
        let wait =
            agent::WaitProcessRequest { container_id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.streams.wait_process(deadline(), &wait).await.unwrap().status
    }

    async fn read(&self, id: &str, exec: &str, stderr: bool) -> String {
        let request = agent::ReadStreamRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            len: 65_536,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            let answer = if stderr {
                self.streams.read_stderr(deadline(), &request).await
            } else {
                self.streams.read_stdout(deadline(), &request).await
            };
            match answer.unwrap().data {
                data if data.is_empty() => return String::from_utf8(all).unwrap(),
                data => all.extend(data),
            }
        }
    }

    /// Sends a signal; with an empty `exec` to all of the container.
    pub(crate) async fn signal(&self, id: &str, exec: &str, signal: u32) -> ttrpc::Result<agent::Empty> {
        let request = agent::SignalProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            signal,
            ..Default::default()
        };
        self.calls.signal_process(deadline(), &request).await
    }

    /// Removes a container, whatever it does.
    pub(crate) async fn remove(&self, id: &str) {
        let request =
            agent::RemoveContainerRequest { container_id: id.into(), timeout: 100, ..Default::default() };
        self.calls.remove_container(deadline(), &request).await.unwrap();
    }

    /// Sets limits.
    pub(crate) async fn update(&self, id: &str, resources: &Value) -> ttrpc::Result<agent::Empty> {
        let resources: LinuxResources = serde_json::from_value(resources.clone()).unwrap();
        let request = agent::UpdateContainerRequest {
            container_id: id.into(),
            resources: Some(oci::LinuxResources::try_from(&resources).unwrap()).into(),
            ..Default::default()
        };
        self.calls.update_container(deadline(), &request).await
    }

    /// The container's counters.
    pub(crate) async fn stats(&self, id: &str) -> agent::StatsContainerResponse {
        let request = agent::StatsContainerRequest { container_id: id.into(), ..Default::default() };
        self.calls.stats_container(deadline(), &request).await.unwrap()
    }
}

/// Where the root file system of the container is in the guest.
pub(crate) fn rootfs(id: &str) -> String {
    format!("/run/c/{id}/rootfs")
}

/// A specification that runs `true` in busybox.
fn base(id: &str) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let capabilities = json!(CAPABILITIES);
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": rootfs(id)},
        "process": {
            "args": ["true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": []
            },
        },
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "cgroup"}],
        },
    })
}

/// Objects are merged; everything else is replaced, except that `mounts` are added.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                let old = into.entry(key.clone()).or_insert(Value::Null);
                match (old, value) {
                    (Value::Array(old), Value::Array(new)) if key == "mounts" => old.extend(new.clone()),
                    (old, value) => merge(old, value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Waits until the agent behind a vsock device in user space says that it serves, however long a busy
/// machine takes: speaking to it before can make the device deaf.
async fn announced(address: &AgentAddress) {
    let AgentAddress::HybridVsock { socket, .. } = address else { return };
    let listener = UnixListener::bind(format!("{}_1027", socket.as_path().display())).unwrap();
    tokio::time::timeout(WAIT, listener.accept()).await.unwrap().unwrap();
    std::fs::remove_file(listener.local_addr().unwrap().as_pathname().unwrap()).unwrap();
}

async fn dial(address: &AgentAddress) -> Client {
    match address {
        AgentAddress::Vsock { cid, port } => {
            let stream = VsockStream::connect(VsockAddr::new(cid.0, port.0)).await.unwrap();
            Client::new(Socket::new(stream))
        }
        AgentAddress::HybridVsock { socket, port } => {
            let mut stream = UnixStream::connect(socket.as_path()).await.unwrap();
            stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await.unwrap();
            while stream.read_u8().await.unwrap() != b'\n' {}
            Client::new(Socket::new(stream))
        }
        AgentAddress::Unix { socket } => {
            Client::new(Socket::new(UnixStream::connect(socket.as_path()).await.unwrap()))
        }
    }
}
