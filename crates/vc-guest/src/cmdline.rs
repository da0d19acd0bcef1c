//! What the host asks for on the kernel's command line.

use tracing::Level;

/// The agent's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which lines the agent logs (`agent.log=debug`); warnings and errors by default.
    pub log: Level,
    /// The vsock port of the host to connect to once the agent serves (`agent.ready_vport=1234`).
    pub ready_port: Option<u32>,
    /// The vsock port of the guest where the host reads the log, which then does not go to the console
    /// (`agent.log_vport=1025`).
    pub log_port: Option<u32>,
    /// The vsock port of the guest with a console for a person (`agent.debug_console`: 1026;
    /// `agent.debug_console_vport=1026`).
    pub console_port: Option<u32>,
}

/// Where the debug console is unless told otherwise.
const CONSOLE_PORT: u32 = 1026;

/// Reads the settings from `cmdline`, the text of `/proc/cmdline`.
///
/// The last of several wins, as with the kernel's own parameters; an unknown level is the default.
///
/// ```
/// let settings = vc_guest::parse_cmdline("quiet agent.log=debug panic=-1");
/// assert_eq!(settings.log, tracing::Level::DEBUG);
/// ```
pub fn parse_cmdline(cmdline: &str) -> Settings {
    let mut settings = Settings { log: Level::WARN, ready_port: None, log_port: None, console_port: None };
    for word in cmdline.split_ascii_whitespace() {
        if let Some(level) = word.strip_prefix("agent.log=") {
            settings.log = level.parse().unwrap_or(Level::WARN);
        } else if let Some(port) = word.strip_prefix("agent.ready_vport=") {
            settings.ready_port = port.parse().ok();
        } else if let Some(port) = word.strip_prefix("agent.log_vport=") {
            settings.log_port = port.parse().ok();
        } else if let Some(port) = word.strip_prefix("agent.debug_console_vport=") {
            settings.console_port = port.parse().ok();
        } else if word == "agent.debug_console" {
            settings.console_port = settings.console_port.or(Some(CONSOLE_PORT));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_known_level_counts() {
        for (cmdline, want) in [
            ("", Level::WARN),
            ("agent.log=info agent.log=trace", Level::TRACE),
            ("agent.log=loud", Level::WARN),
            ("xagent.log=debug", Level::WARN),
        ] {
            assert_eq!(parse_cmdline(cmdline).log, want, "{cmdline:?}");
        }
        assert_eq!(parse_cmdline("agent.ready_vport=7 agent.ready_vport=1234").ready_port, Some(1234));
        assert_eq!(parse_cmdline("agent.ready_vport=x").ready_port, None);
    }

    #[test]
    fn log_and_console_are_where_the_host_wants_them() {
        let ports = |cmdline: &str| {
            let settings = parse_cmdline(cmdline);
            (settings.log_port, settings.console_port)
        };
        assert_eq!(ports(""), (None, None));
        assert_eq!(ports("agent.log_vport=1025 agent.debug_console"), (Some(1025), Some(1026)));
        assert_eq!(ports("agent.debug_console agent.debug_console_vport=9"), (None, Some(9)));
        assert_eq!(ports("agent.debug_console_vport=9 agent.debug_console"), (None, Some(9)));
    }
}
