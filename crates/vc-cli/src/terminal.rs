//! The terminal of this process, when the command has one.

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use vc_agent::TerminalSize;
use vc_container::Container;

/// The terminal passes every key on; dropping this makes it as it was.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// `None` when the standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        if !isatty(stdin()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%error, "the terminal could not be reset; `reset` does it");
        }
    }
}

/// The size of this one, if this is one.
pub(crate) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdin()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives the command's terminal the size of this one, if this is one.
pub(crate) async fn pass_size(container: Container) {
    let Some(size) = size() else { return };
    if let Err(error) = container.resize_terminal(size).await {
        tracing::warn!(%error, "the size of the terminal was not passed on");
    }
}
