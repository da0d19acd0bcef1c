//! Errors as container engines read them: in the file of `--log`, and on standard error.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::cli::{Global, LogFormat};
use crate::failure::Failure;

/// What runc and crun exit with when they fail.
pub(crate) const FAILED: u8 = 1;

/// What runc exits with when a process cannot be executed.
pub(crate) const NOT_EXECUTED: u8 = 255;

/// Tells of the failure, and gives the exit code.
pub(crate) fn report(global: &Global, failure: Failure, code: u8) -> ExitCode {
    let message = failure.for_engines();
    if let Some(log) = &global.log {
        let line = line(global.log_format, &message, SystemTime::now());
        let written = OpenOptions::new().append(true).create(true).open(log);
        if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
            // Nor is there a better place to say that.
            let _ = writeln!(std::io::stderr(), "vc: could not write to {}: {error}", log.display());
        }
    }
    Failure::message(message).with_code(code).report()
}

/// As runc writes it; engines look for `msg`.
fn line(format: LogFormat, message: &str, now: SystemTime) -> String {
    let time = humantime::format_rfc3339_seconds(now);
    match format {
        LogFormat::Json => {
            let line = serde_json::json!({"level": "error", "msg": message, "time": time.to_string()});
            format!("{line}\n")
        }
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_runc_writes() {
        let said = "no \"such\" file";
        let json = line(LogFormat::Json, said, SystemTime::UNIX_EPOCH);
        let expected = r#"{"level":"error","msg":"no \"such\" file","time":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(json, format!("{expected}\n"));
        let text = line(LogFormat::Text, said, SystemTime::UNIX_EPOCH);
        assert_eq!(text, "time=\"1970-01-01T00:00:00Z\" level=error msg=\"no \\\"such\\\" file\"\n");
    }
}
