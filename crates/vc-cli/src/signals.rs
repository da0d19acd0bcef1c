//! Signals to this process: most are for the command.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use vc_agent::Signal;

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// One for the command.
    Forward(Forward),
    /// The terminal has another size.
    Resized,
}

/// A signal for the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    pub(crate) signal: Signal,
    kind: SignalKind,
}

impl Forward {
    /// Whether it asks the command to end.
    pub(crate) fn ends(self) -> bool {
        ends(self.kind.as_raw_value())
    }
}

impl Received {
    /// What a shell reports of a process that the signal ended.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Forward(forward) => 128 + u8::try_from(forward.kind.as_raw_value()).unwrap_or(0),
            Self::Resized => 0,
        }
    }
}

/// Whether the signal of this number asks a command to end.
pub(crate) fn ends(number: i32) -> bool {
    ENDING.iter().any(|kind| kind.as_raw_value() == number)
}

const ENDING: [SignalKind; 4] =
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];

/// The signals this process listens to; it no longer dies of them.
pub(crate) struct Signals {
    ending: [Stream; 4],
    user: [Stream; 2],
    resized: Stream,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        let [interrupt, terminate, hangup, quit] = ENDING;
        Ok(Self {
            ending: [signal(interrupt)?, signal(terminate)?, signal(hangup)?, signal(quit)?],
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Received {
        let [interrupt, terminate, hangup, quit] = &mut self.ending;
        let [first, second] = &mut self.user;
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
            _ = quit.recv() => SignalKind::quit(),
            _ = first.recv() => SignalKind::user_defined1(),
            _ = second.recv() => SignalKind::user_defined2(),
            _ = self.resized.recv() => return Received::Resized,
        };
        let signal = Signal::new(kind.as_raw_value()).expect("the system's signals are signals");
        Received::Forward(Forward { signal, kind })
    }

    /// The next signal that asks to end; others are dropped. Cancel safe.
    pub(crate) async fn next_ending(&mut self) -> Received {
        loop {
            match self.next().await {
                received @ Received::Forward(forward) if forward.ends() => return received,
                _ => {}
            }
        }
    }
}
