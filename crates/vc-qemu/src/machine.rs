//! A running QEMU.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use vc_device::{BlockSpec, RootPorts};
use vc_hypervisor::{ExitCause, Hotplug, Machine, MachineExit, PlugError, StopError, UnplugError};
use vc_types::{AgentAddress, Deadline, DeviceId, PciPath};

use crate::launch::Spawned;
use crate::plug;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::tail::Tail;
use crate::vsock::{DAEMON, Vsock};

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
    vsock: Vsock,
    console: Tail,
    exit: watch::Sender<Option<MachineExit>>,
}

impl Shared {
    pub(crate) fn new(spawned: Spawned, vsock: Vsock, qmp: Qmp, ports: RootPorts) -> Self {
        let Spawned { qemu, console, .. } = spawned;
        Self {
            qmp,
            next_fdset: AtomicI64::new(0),
            ports: Mutex::new(ports),
            qemu,
            vsock,
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
            match &self.vsock.daemon {
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

    /// The exit as it was first told: all callers get the same. To be called before the helper is
    /// ended, whose own end counts as a cause.
    fn conclude(&self, cause: ExitCause) -> MachineExit {
        let describe = || {
            let mut stderr_tail = self.qemu.stderr_tail();
            if let Some((how, words)) =
                self.vsock.daemon.as_ref().and_then(|d| Some((d.ended()?, d.stderr_tail())))
            {
                stderr_tail.push_str(&format!("\n{DAEMON} ended first: {how}\n{words}"));
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
}

impl QemuMachine {
    pub(crate) fn new(shared: Shared) -> Self {
        let address = shared.vsock.transport.agent_address();
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
        let Shared { qemu, vsock, .. } = &*self.shared;
        // QEMU first: it is of use without its helper for a moment, but not the other way round.
        let ended = qemu.end(deadline).await.map(|cause| self.shared.conclude(cause));
        vsock.end(deadline).await?;
        ended.ok_or(StopError::StillRunning { program: QEMU, pid: qemu.pid() })
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
