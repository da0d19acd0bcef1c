//! How a machine ends: noticed by one task, brought about by a stop that escalates.

use std::sync::Arc;
use std::time::Duration;

use qapi::qmp;
use serde_json::Value;
use tokio::sync::{oneshot, watch as channel};
use tokio::task::JoinHandle;
use vc_hypervisor::{ExitCause, MachineExit, ShutdownCause, StopError};
use vc_types::Deadline;

use crate::machine::{QEMU, Shared};
use crate::process::LAST_WORDS;
use crate::qmp::Qmp;
use crate::vsock::DAEMON;

/// How long QEMU may take to quit before it is killed. It takes some ten milliseconds.
const QUIT_TIME: Duration = Duration::from_secs(1);

/// How long a QEMU whose stream ended may take to end. The stream is closed by its end, a moment before.
const REAP_TIME: Duration = Duration::from_millis(500);

/// Waits for QEMU's end and tells it. The end of its helper, or of the QMP stream, brings it about:
/// nothing works without the one, and nothing can be told to the machine without the other.
pub(crate) async fn watch(
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
    exit: channel::Sender<Option<MachineExit>>,
) {
    let mut shutdown = announced(&shared.qmp);
    let helper_ended = async {
        match &shared.vsock.daemon {
            Some(daemon) => daemon.exited().await,
            None => std::future::pending().await,
        }
    };
    let stream_ended = async {
        shared.qmp.closed().await;
        tokio::time::sleep(REAP_TIME).await;
    };
    let (cause, deaf) = tokio::select! {
        biased;
        // Whoever takes it over watches it.
        () = shared.let_go.notified() => return,
        cause = shared.qemu.exited() => (cause, false),
        _ = helper_ended => (killed(&shared).await, false),
        () = stream_ended => (killed(&shared).await, true),
    };
    // What it said last is still in the pipes and sockets, whose other ends are closed by now. One bound for
    // all of them: whoever waits for the news is told in time.
    let helper_silent = async {
        match &shared.vsock.daemon {
            Some(daemon) if daemon.ended().is_some() => daemon.silent().await,
            _ => {}
        }
    };
    let last_words =
        async { tokio::join!(listening, shared.qmp.closed(), shared.qemu.silent(), helper_silent) };
    let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    let mut told = describe(&shared, cause);
    told.shutdown = shutdown.try_recv().ok();
    if deaf {
        told.stderr_tail.push_str("\nit was killed, since it no longer spoke QMP");
    }
    exit.send_replace(Some(told));
}

async fn killed(shared: &Shared) -> ExitCause {
    shared.qemu.kill();
    shared.qemu.exited().await
}

/// The exit when nobody can tell any more how it was.
pub(crate) fn lost(shared: &Shared) -> MachineExit {
    describe(shared, shared.qemu.ended().unwrap_or(ExitCause::Lost))
}

fn describe(shared: &Shared, cause: ExitCause) -> MachineExit {
    let mut stderr_tail = shared.qemu.stderr_tail();
    if let Some((how, words)) = shared.vsock.daemon.as_ref().and_then(|d| Some((d.ended()?, d.stderr_tail())))
    {
        stderr_tail.push_str(&format!("\n{DAEMON} ended first: {how}\n{words}"));
    }
    MachineExit { cause, shutdown: None, stderr_tail, console_tail: shared.console.text() }
}

/// What QEMU says about why it ends.
fn announced(qmp: &Qmp) -> oneshot::Receiver<ShutdownCause> {
    qmp.events().expect(|name, data| {
        let reason = || data.get("reason").and_then(Value::as_str);
        (name == "SHUTDOWN").then(|| match reason() {
            Some("guest-shutdown") => ShutdownCause::GuestShutdown,
            Some("guest-reset") => ShutdownCause::GuestReset,
            Some("guest-panic") => ShutdownCause::GuestPanic,
            Some("host-qmp-quit") => ShutdownCause::HostRequest,
            Some("host-signal") => ShutdownCause::HostSignal,
            _ => ShutdownCause::Other,
        })
    })
}

/// Presses the button and waits, until `grace`, for the guest to power off.
pub(crate) async fn press_power_button(shared: &Shared, grace: Deadline) {
    // Whatever comes of it, the machine is stopped next.
    if shared.qmp.execute(qmp::system_powerdown {}, grace).await.is_ok() {
        let _ = tokio::time::timeout(grace.remaining(), shared.exited()).await;
    }
}

/// Asks QEMU to quit, kills it if it does not, then ends its helper.
pub(crate) async fn stop(shared: Arc<Shared>, deadline: Deadline) -> Result<MachineExit, StopError> {
    if shared.qemu.ended().is_none() {
        // Half of the time at most, so that some is left for the rest.
        let grace = Deadline::after(deadline.remaining() / 2).at_most(QUIT_TIME);
        let quit = async {
            if shared.qmp.execute(qmp::quit {}, grace).await.is_ok() {
                shared.qemu.exited().await;
            }
        };
        let _ = tokio::time::timeout(grace.remaining(), quit).await;
    }
    // QEMU first: it is of use without its helper for a moment, but not the other way round.
    shared.qemu.kill();
    // Before the helper is ended, whose own end counts as a cause.
    let told = tokio::time::timeout(deadline.remaining(), shared.exited()).await;
    shared.vsock.end(deadline).await?;
    shared.sockets.remove()?;
    told.map_err(|_| StopError::StillRunning { program: QEMU, pid: shared.qemu.pid() })
}
