//! What a creator wants of an owner, and what it is answered.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::machine::MachinePlan;
use crate::oci::record::Record;

/// A container that is wanted. Every path is absolute.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The container's directory, which has its record.
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
    pub(crate) machine: MachinePlan,
    pub(crate) console_socket: Option<PathBuf>,
    /// Whether more is logged.
    pub(crate) debug: bool,
}

/// A container that is wanted in the machine of another. Every path is absolute.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The container's directory, which has its record.
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) spec: Spec,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// What was ordered is there: the container, which waits for its start, or the process, which runs.
    Created,
    /// It is not, and nothing of it is left.
    Failed {
        /// The exit code that `vc run` has for it.
        code: u8,
        /// Why, in one line.
        message: String,
    },
}
