//! What a request met, and what that means to the caller of the port.

use ttrpc::Code;

use crate::{AgentError, Call};

/// The longest text of an agent that is kept, in bytes.
const MAX_DETAIL: usize = 4096;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The deadline passed.
    Deadline,
    /// The connection ended.
    Disconnected,
    /// What came was no answer to the request.
    Malformed(String),
    /// The request cannot be put on the wire.
    Unsendable(String),
    /// The agent answered with an error.
    Status(Code, String),
}

impl Fault {
    pub(super) fn from_status(status: &ttrpc::Status) -> Self {
        // A code unknown here is an error none the less.
        Self::Status(status.code.enum_value().unwrap_or(Code::UNKNOWN), detail(status.message()))
    }

    /// The error of the port that this means in answer to `call`.
    ///
    /// Agents answer INVALID_ARGUMENT for an unknown container and NOT_FOUND for an unknown process.
    /// Of CreateContainer, StartContainer and ExecProcess, NOT_FOUND and PERMISSION_DENIED mean the
    /// command.
    pub(super) fn into_error(self, call: Call) -> AgentError {
        let (code, detail) = match self {
            Self::Deadline => return AgentError::Deadline { call },
            Self::Disconnected => return AgentError::Disconnected { call },
            Self::Malformed(detail) => return AgentError::Malformed { call, detail },
            Self::Unsendable(detail) => return AgentError::Unsendable { call, detail },
            Self::Status(code, detail) => (code, detail),
        };
        let launches = matches!(call, Call::CreateContainer | Call::StartContainer | Call::ExecProcess);
        match (code, call) {
            (Code::DEADLINE_EXCEEDED, _) => AgentError::Deadline { call },
            (Code::UNIMPLEMENTED, _) => AgentError::Unimplemented { call },
            (Code::NOT_FOUND, _) if launches => AgentError::ExecutableNotFound { detail },
            (Code::PERMISSION_DENIED, _) if launches => AgentError::NotExecutable { detail },
            (Code::ALREADY_EXISTS, Call::CreateContainer) => AgentError::ContainerExists { detail },
            (Code::ALREADY_EXISTS, Call::ExecProcess) => AgentError::ProcessExists { detail },
            (Code::NOT_FOUND, call) if names_container_only(call) => {
                AgentError::NoSuchContainer { call, detail }
            }
            (Code::NOT_FOUND, Call::SignalProcess) => AgentError::AlreadyGone,
            (_, Call::SignalProcess) if names_esrch(&detail) => AgentError::AlreadyGone,
            (Code::NOT_FOUND, _) if names_container(call) => AgentError::NoSuchProcess { call, detail },
            (Code::INVALID_ARGUMENT, _) if names_container(call) => {
                AgentError::NoSuchContainer { call, detail }
            }
            (Code::FAILED_PRECONDITION, Call::WriteStdin) => AgentError::StreamClosed,
            _ => AgentError::Refused { call, detail },
        }
    }
}

/// Whether `call` is about one container and no process of it.
fn names_container_only(call: Call) -> bool {
    use Call::{
        GetDiagnosticData, PauseContainer, RemoveContainer, ResumeContainer, StatsContainer, UpdateContainer,
    };
    matches!(
        call,
        RemoveContainer
            | PauseContainer
            | ResumeContainer
            | UpdateContainer
            | StatsContainer
            | GetDiagnosticData
    )
}

/// Whether the container's name is the argument of `call` that an agent may find invalid.
///
/// The others (ids, signals, sizes) are checked by their types, but for the process of ExecProcess and
/// the limits of UpdateContainer; there the client asks the agent once more which of the two it means.
fn names_container(call: Call) -> bool {
    use Call::{
        CloseStdin, ExecProcess, ReadStderr, ReadStdout, SignalProcess, StartContainer, TtyWinResize,
        WaitProcess, WriteStdin,
    };
    names_container_only(call)
        || matches!(
            call,
            StartContainer
                | ExecProcess
                | SignalProcess
                | WaitProcess
                | TtyWinResize
                | WriteStdin
                | CloseStdin
                | ReadStdout
                | ReadStderr
        )
}

/// Whether an agent says ESRCH in words.
///
/// The one place where a text decides: older agents of Kata Containers answer a signal to a process
/// that has ended with a code for any failure and the words "ESRCH: No such process".
fn names_esrch(detail: &str) -> bool {
    detail.contains("ESRCH")
}

/// The agent's words for a person to read: without its stack trace, on one line, bounded, and with
/// nothing that a terminal would obey.
fn detail(message: &str) -> String {
    let words = message.split("Stack backtrace:").next().unwrap_or_default();
    let words = words.split(|c: char| c.is_whitespace() || c.is_control());
    let mut text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if text.len() > MAX_DETAIL {
        text.truncate(text.floor_char_boundary(MAX_DETAIL));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Code, call: Call) -> AgentError {
        Fault::from_status(&ttrpc::get_status(code, "words")).into_error(call)
    }

    #[test]
    fn codes_decide_in_the_light_of_the_call() {
        use AgentError as E;
        assert!(matches!(error(Code::NOT_FOUND, Call::CreateContainer), E::ExecutableNotFound { .. }));
        assert!(matches!(error(Code::NOT_FOUND, Call::StartContainer), E::ExecutableNotFound { .. }));
        assert!(matches!(error(Code::PERMISSION_DENIED, Call::CreateContainer), E::NotExecutable { .. }));
        assert!(matches!(error(Code::PERMISSION_DENIED, Call::RemoveContainer), E::Refused { .. }));
        assert!(matches!(error(Code::ALREADY_EXISTS, Call::CreateContainer), E::ContainerExists { .. }));
        assert!(matches!(error(Code::INVALID_ARGUMENT, Call::CreateContainer), E::Refused { .. }));
        assert!(matches!(error(Code::INVALID_ARGUMENT, Call::StartContainer), E::NoSuchContainer { .. }));
        assert!(matches!(error(Code::NOT_FOUND, Call::RemoveContainer), E::NoSuchContainer { .. }));
        assert!(matches!(error(Code::NOT_FOUND, Call::WaitProcess), E::NoSuchProcess { .. }));
        assert!(matches!(error(Code::NOT_FOUND, Call::SignalProcess), E::AlreadyGone));
        assert!(matches!(error(Code::FAILED_PRECONDITION, Call::WriteStdin), E::StreamClosed));
        assert!(matches!(error(Code::FAILED_PRECONDITION, Call::TtyWinResize), E::Refused { .. }));
        assert!(matches!(error(Code::UNIMPLEMENTED, Call::Check), E::Unimplemented { .. }));
        assert!(matches!(error(Code::DEADLINE_EXCEEDED, Call::Check), E::Deadline { .. }));
        assert!(matches!(error(Code::DATA_LOSS, Call::Check), E::Refused { .. }));
    }

    #[test]
    fn a_code_from_the_future_is_an_error_too() {
        let mut status = ttrpc::Status::new();
        status.code = protobuf::EnumOrUnknown::from_i32(4711);
        assert_eq!(Fault::from_status(&status), Fault::Status(Code::UNKNOWN, String::new()));
    }

    #[test]
    fn only_a_signal_may_be_answered_with_esrch_in_words() {
        let status = ttrpc::get_status(Code::INTERNAL, "failed: ESRCH: No such process");
        let fault = Fault::from_status(&status);
        assert!(matches!(fault.clone().into_error(Call::SignalProcess), AgentError::AlreadyGone));
        assert!(matches!(fault.into_error(Call::WaitProcess), AgentError::Refused { .. }));
    }

    #[test]
    fn words_are_cut_cleaned_and_bounded() {
        assert_eq!(detail("no\n\nway\u{1b}[2J \0 Stack backtrace:\n 0: main"), "no way [2J");
        let long = detail(&"ä".repeat(MAX_DETAIL));
        assert!(long.len() <= MAX_DETAIL + 3 && long.ends_with("ä…"), "{}", long.len());
    }
}
