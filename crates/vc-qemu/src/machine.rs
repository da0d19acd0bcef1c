//! A running QEMU.

use std::fs;
use std::io;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use vc_device::{BlockSpec, RootPorts};
use vc_hypervisor::{ExitCause, Hotplug, Machine, MachineExit, PlugError, StopError, UnplugError};
use vc_types::{AgentAddress, Deadline, DeviceId, HostPath, PciPath};

use crate::launch::Spawned;
use crate::plug;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::tail::Tail;
use crate::vsock::{DAEMON, Transport};

/// The name that errors give QEMU.
pub(crate) const QEMU: &str = "QEMU";

/// A machine that QEMU runs. Dropping it kills QEMU and its helper.
#[derive(Debug)]
pub struct QemuMachine {
    shared: Arc<Shared>,
    address: AgentAddress,
}

/// What a machine's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) qmp: Qmp,
    pub(crate) next_fdset: AtomicI64,
    ports: Mutex<RootPorts>,
    qemu: Process,
    daemon: Option<Process>,
    transport: Transport,
    console: Tail,
    exit: watch::Sender<Option<MachineExit>>,
}

impl Shared {
    pub(crate) fn new(spawned: Spawned, qmp: Qmp, ports: RootPorts) -> Self {
        let Spawned { qemu, vsock, console, .. } = spawned;
        Self {
            qmp,
            next_fdset: AtomicI64::new(0),
            ports: Mutex::new(ports),
            qemu,
            daemon: vsock.daemon,
            transport: vsock.transport,
            console,
            exit: watch::channel(None).0,
        }
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, RootPorts> {
        self.ports.lock().expect("nothing panics while it holds the ports")
    }

    /// Waits for QEMU's end; a helper's end brings it about, since nothing works without it.
    pub(crate) async fn exited(&self) -> MachineExit {
        let helper_ended = async {
            match &self.daemon {
                Some(daemon) => daemon.exited().await,
                None => std::future::pending().await,
            }
        };
        let cause = tokio::select! {
            biased;
            cause = self.qemu.exited() => cause,
            _ = helper_ended => {
                self.qemu.kill();
                self.qemu.exited().await
            }
        };
        self.conclude(cause)
    }

    /// The exit as it was first told: all callers get the same.
    fn conclude(&self, cause: ExitCause) -> MachineExit {
        let describe = || {
            let mut stderr_tail = self.qemu.stderr_tail();
            if let Some(words) =
                self.daemon.as_ref().map(Process::stderr_tail).filter(|words| !words.is_empty())
            {
                stderr_tail.push_str(&format!("{DAEMON}: {words}"));
            }
            MachineExit { cause, stderr_tail, console_tail: self.console.text() }
        };
        self.exit.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(describe);
            first
        });
        self.exit.borrow().clone().expect("set above")
    }

    fn processes(&self) -> impl Iterator<Item = (&'static str, &Process)> {
        // QEMU first: its helper is of no use without it, but not the other way round.
        [(QEMU, Some(&self.qemu)), (DAEMON, self.daemon.as_ref())]
            .into_iter()
            .filter_map(|(name, process)| process.map(|process| (name, process)))
    }

    fn remove_sockets(&self) -> Result<(), StopError> {
        let Transport::Daemon { control, agent } = &self.transport else { return Ok(()) };
        remove(control).and(remove(agent))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The processes die with their handles; their sockets are files and would stay.
        if let Err(error) = self.remove_sockets() {
            tracing::warn!(%error, "a dropped machine left a file");
        }
    }
}

fn remove(path: &HostPath) -> Result<(), StopError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StopError::Leftover { path: path.clone(), source })
        }
        _ => Ok(()),
    }
}

impl QemuMachine {
    pub(crate) fn new(shared: Shared) -> Self {
        let address = shared.transport.agent_address();
        Self { shared: Arc::new(shared), address }
    }
}

impl Machine for QemuMachine {
    fn agent_address(&self) -> &AgentAddress {
        &self.address
    }

    async fn exited(&self) -> MachineExit {
        self.shared.exited().await
    }

    async fn stop(&self, deadline: Deadline) -> Result<MachineExit, StopError> {
        for (program, process) in self.shared.processes() {
            if !process.end(deadline).await {
                return Err(StopError::StillRunning { program, pid: process.pid() });
            }
        }
        self.shared.remove_sockets()?;
        Ok(self.shared.exited().await)
    }
}

impl Hotplug for QemuMachine {
    async fn plug_block(&self, spec: &BlockSpec, deadline: Deadline) -> Result<PciPath, PlugError> {
        let work = plug::plug_block(self.shared.clone(), spec.clone(), deadline);
        // A task of its own, so that a caller who leaves cannot leave half a plug behind.
        tokio::spawn(work).await.expect("plugging does not panic and is not aborted")
    }

    async fn unplug(&self, id: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
        let work = plug::unplug(self.shared.clone(), id.clone(), deadline);
        tokio::spawn(work).await.expect("unplugging does not panic and is not aborted")
    }
}
