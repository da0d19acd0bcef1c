//! The ports beside that of the protocol: the log, and a console for a person.

use crate::debug_console;
use crate::log::LogLines;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// How many people may look around at the same time.
const MAX_CONSOLES: usize = 8;

/// Gives the log to whoever connects to `port`, one after the other.
pub(super) fn serve_log(port: u32, lines: LogLines) {
    tokio::spawn(async move {
        let Some(listener) = listen(port) else { return };
        while let Some(mut host) = accept(&listener).await {
            // It hung up; the next one gets what comes then.
            let _ = lines.send(&mut host).await;
        }
    });
}

/// Answers whoever connects to `port`.
pub(super) fn serve_console(port: u32) {
    tokio::spawn(async move {
        let Some(listener) = listen(port) else { return };
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONSOLES));
        while let Some(person) = accept(&listener).await {
            let Ok(place) = std::sync::Arc::clone(&places).try_acquire_owned() else { continue };
            tokio::spawn(async move {
                let _place = place;
                let _ = debug_console::answer(person).await;
            });
        }
    });
}

fn listen(port: u32) -> Option<VsockListener> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port));
    listener.inspect_err(|error| tracing::warn!(port, %error, "cannot listen")).ok()
}

async fn accept(listener: &VsockListener) -> Option<VsockStream> {
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "nobody is listened to any more");
            None
        }
    }
}
