//! Why a specification and its message cannot be converted into each other.

use std::path::PathBuf;

/// A value that one side has and the other cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A path that is not UTF-8; the wire carries text.
    #[error("{field} is {path:?}, which is not UTF-8: the agent protocol cannot carry it")]
    NotUtf8 {
        /// The field in the notation of `config.json`.
        field: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// A number too large, too small or negative for the other side's type.
    #[error("{field} is {value}, which is out of its range")]
    Range {
        /// The field in the notation of `config.json`.
        field: &'static str,
        /// Its value.
        value: i128,
    },
    /// A name that the OCI runtime specification does not know.
    #[error("{field} is {value:?}, which the OCI runtime specification does not know")]
    Unknown {
        /// The field in the notation of `config.json`.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Fields without a place on the wire.
    #[error("the agent protocol has no place for {}", fields.join(", "))]
    NotCarried {
        /// The fields in the notation of `config.json`.
        fields: Vec<String>,
    },
}
