//! What the host asks for on the kernel's command line.

use tracing::Level;

/// The agent's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which lines the agent logs (`agent.log=debug`); warnings and errors by default.
    pub log: Level,
}

/// Reads the settings from `cmdline`, the text of `/proc/cmdline`.
///
/// The last of several wins, as with the kernel's own parameters; an unknown level is the default.
///
/// ```
/// let settings = vc_guest::parse_cmdline("quiet agent.log=debug panic=-1");
/// assert_eq!(settings.log, tracing::Level::DEBUG);
/// ```
pub fn parse_cmdline(cmdline: &str) -> Settings {
    let mut settings = Settings { log: Level::WARN };
    for word in cmdline.split_ascii_whitespace() {
        if let Some(level) = word.strip_prefix("agent.log=") {
            settings.log = level.parse().unwrap_or(Level::WARN);
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
    }
}
