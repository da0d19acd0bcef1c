//! Serving the protocol as early as the host can reach it.

use super::init::BootError;
use super::ports;
use crate::cmdline::Settings;
use crate::guest::Guest;
use crate::log::{LogLines, chain};
use crate::modules::ModuleLoader;
use crate::reaper::Reaper;
use crate::service::{Connections, Server, server};
use crate::uevent::DeviceEvents;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use vc_agent_protocol::AGENT_PORT;

/// With this module the host can reach the guest; those after it in the boot list can wait.
const TRANSPORT: &str = "vmw_vsock_virtio_transport";

/// How long the answer to the last request has to leave the guest, unless the host hangs up sooner. A
/// host that misses it sees the machine end.
const LAST_ANSWER: Duration = Duration::from_millis(20);

/// How long nobody is accepted after somebody could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the host may take to accept the connection that announces the agent.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(5);

/// How far the modules of the boot list are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Loading,
    Reachable,
    Done,
}

/// There on machines that have, or may get, non-volatile memory (ACPI 6.4, section 9.19).
const NVDIMM_ROOT: &str = "/sys/bus/acpi/devices/ACPI0012:00";

/// The modules of the boot list, loaded by a thread of its own.
#[derive(Debug)]
pub(super) struct BootModules(watch::Receiver<Progress>);

impl BootModules {
    /// Starts to load them, in the order of the list.
    pub(super) fn start(modules: Arc<ModuleLoader>) -> Self {
        let (sender, receiver) = watch::channel(Progress::Loading);
        std::thread::spawn(move || {
            let list = modules.boot_list();
            if !list.iter().any(|name| name == TRANSPORT) {
                sender.send_replace(Progress::Reachable);
            }
            for name in &list {
                if let Err(error) = modules.load(name, "") {
                    tracing::warn!(error = chain(&error), "a module of the boot list is missing");
                }
                if name == TRANSPORT {
                    sender.send_replace(Progress::Reachable);
                }
            }
            sender.send_replace(Progress::Done);
        });
        Self(receiver)
    }

    async fn reached(&self, progress: Progress) {
        // The thread ends only after it has reported the last step; if it panicked, go on without.
        let _ = self.0.clone().wait_for(|now| *now >= progress).await;
    }
}

/// Serves until the host asks for the end of the machine.
pub(super) async fn serve(
    modules: Arc<ModuleLoader>,
    boot_modules: BootModules,
    settings: Settings,
    log: Option<LogLines>,
    started: Instant,
) -> Result<(), BootError> {
    let reaper = Reaper::start().map_err(|error| BootError::Step("watch children", error))?;
    let events = DeviceEvents::listen().map_err(|error| BootError::Step("watch devices", error))?;
    // Its driver learns of memory that is plugged later only if it is there by then.
    let memory_root = std::path::Path::new(NVDIMM_ROOT).exists();
    if memory_root && let Err(error) = modules.load_if_known(&["nfit", "nd_pmem"]) {
        tracing::warn!(error = chain(&error), "no driver of non-volatile memory");
    }
    let (ready, modules_ready) = watch::channel(false);
    let guest = Guest::new(reaper, modules, modules_ready, events);
    boot_modules.reached(Progress::Reachable).await;
    let connections = Connections::default();
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT))
        .map_err(|error| BootError::Step("listen on vsock", error))?;
    tokio::spawn(accept(listener, server(guest.clone()), connections.clone()));
    tracing::info!(milliseconds = started.elapsed().as_millis(), "serving");
    if let Some(port) = settings.ready_port {
        tokio::spawn(announce(port));
    }
    if let Some((port, lines)) = settings.log_port.zip(log) {
        ports::serve_log(port, lines);
    }
    if let Some(port) = settings.console_port {
        ports::serve_console(port);
    }
    let warming = guest.clone();
    tokio::spawn(async move { warming.warm_up().await });
    tokio::spawn(async move {
        boot_modules.reached(Progress::Done).await;
        tracing::info!(milliseconds = started.elapsed().as_millis(), "modules are loaded");
        ready.send_replace(true);
    });
    guest.wait_for_power_off().await;
    if tokio::time::timeout(LAST_ANSWER, connections.all_closed()).await.is_err() {
        tracing::info!("the host is still connected");
    }
    Ok(())
}

/// Serves every host that connects.
async fn accept(listener: VsockListener, server: Server, connections: Connections) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (server, stream) = (server.clone(), connections.count(stream));
                tokio::spawn(async move { server.serve(stream).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a host cannot connect");
                // Such as for want of descriptors: not to be tried again at once.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells the host that it can connect now, by a connection to its port `port` that says nothing.
///
/// A host that tries before can be worse off than one that waits: `vhost-device-vsock` 0.3 sometimes
/// delivers nothing any more when the host connects just while the guest's driver starts.
async fn announce(port: u32) {
    let host = VsockAddr::new(VMADDR_CID_HOST, port);
    match tokio::time::timeout(ANNOUNCE_WAIT, VsockStream::connect(host)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(port, %error, "the host does not listen for the agent"),
        Err(_) => tracing::warn!(port, "the host does not answer the agent"),
    }
}
