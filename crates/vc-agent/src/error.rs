//! What can go wrong between host and agent, in terms a caller can act on.

use std::time::Duration;

use crate::Call;

/// Why the agent did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No agent answered in time.
    #[error("no agent answered at {address} within {waited:?}")]
    Unreachable {
        /// Where it was expected.
        address: String,
        /// How long it was waited for.
        waited: Duration,
        /// What the last attempt met.
        #[source]
        last: std::io::Error,
    },
    /// The call had no answer in time. The guest may still do it.
    #[error("the agent did not answer {call} in time")]
    Deadline {
        /// The call.
        call: Call,
    },
    /// The connection ended before the answer came.
    #[error("the connection to the agent ended during {call}")]
    Disconnected {
        /// The call.
        call: Call,
    },
    /// The agent sent what is no answer to the call, or more than is accepted.
    #[error("the agent did not keep to its protocol in answer to {call}: {detail}")]
    Malformed {
        /// The call.
        call: Call,
        /// What was wrong with it.
        detail: String,
    },
    /// The guest has, or may have, a container of that name already.
    #[error("the guest has a container of that name already: {detail}")]
    ContainerExists {
        /// The container, or the agent's words.
        detail: String,
    },
    /// The container has a process of that name already.
    #[error("the container has a process of that name already: {detail}")]
    ProcessExists {
        /// The process, or the agent's words.
        detail: String,
    },
    /// The guest has no container of that name.
    #[error("the guest has no such container ({call}): {detail}")]
    NoSuchContainer {
        /// The call.
        call: Call,
        /// The agent's words.
        detail: String,
    },
    /// The container has no process of that name, or somebody else has taken its exit status.
    #[error("the container has no such process ({call}): {detail}")]
    NoSuchProcess {
        /// The call.
        call: Call,
        /// The agent's words.
        detail: String,
    },
    /// The process has already ended.
    #[error("the process has already ended")]
    AlreadyGone,
    /// The stream has no reader any more.
    #[error("nobody reads the process's standard input any more")]
    StreamClosed,
    /// The container's command does not exist in the container.
    #[error("{detail}")]
    ExecutableNotFound {
        /// The agent's words, which name the command.
        detail: String,
    },
    /// The container's command exists, but cannot be executed.
    #[error("{detail}")]
    NotExecutable {
        /// The agent's words, which name the command.
        detail: String,
    },
    /// This agent does not know the call.
    #[error("this agent does not implement {call}")]
    Unimplemented {
        /// The call.
        call: Call,
    },
    /// The agent refused, or failed.
    #[error("the agent refused {call}: {detail}")]
    Refused {
        /// The call.
        call: Call,
        /// The agent's words, without its stack trace.
        detail: String,
    },
    /// The agent protocol has no place for something that the request asks for; nothing was sent.
    #[error("the agent protocol cannot carry {}: leave it out of {call}", fields.join(", "))]
    NotCarried {
        /// The call.
        call: Call,
        /// The fields, in the notation of `config.json`.
        fields: Vec<String>,
    },
    /// The request cannot be put on the wire.
    #[error("{call} cannot be sent: {detail}")]
    Unsendable {
        /// The call.
        call: Call,
        /// Why not.
        detail: String,
    },
}
