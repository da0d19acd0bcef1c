//! What fails with a shared directory.

use std::fmt;
use std::io;

use vc_types::HostPath;

use crate::ShareName;

/// A step with a shared directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Make it.
    Make(HostPath),
    /// Take it over from another process.
    Adopt(HostPath),
    /// Make a place for a mount in it.
    Place(ShareName),
    /// Look at what is to be bound.
    Source(HostPath),
    /// Set what can be done by a mount, before anybody sees it.
    Attributes(HostPath),
    /// Put a mount there.
    Attach(ShareName),
    /// Take a mount away.
    Detach(ShareName),
    /// Remove the place of a mount.
    RemovePlace(ShareName),
    /// Take away what the shared directory itself is made of.
    Remove(HostPath),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(path) => write!(f, "make the shared directory {path}"),
            Self::Adopt(path) => write!(f, "take over the shared directory {path}"),
            Self::Place(name) => write!(f, "make a place for {name} in the shared directory"),
            Self::Source(path) => write!(f, "open {path} to share it"),
            Self::Attributes(path) => write!(f, "limit what can be done with {path}"),
            Self::Attach(name) => write!(f, "put {name} into the shared directory"),
            Self::Detach(name) => write!(f, "take {name} out of the shared directory"),
            Self::RemovePlace(name) => write!(f, "remove the place of {name} in the shared directory"),
            Self::Remove(path) => write!(f, "remove the shared directory's {path}"),
        }
    }
}

/// Something with a shared directory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The system refused a step.
    #[error("could not {step}")]
    System {
        /// The step.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
    /// Something else has the name.
    #[error("{0} is in the shared directory already, and is something else")]
    Taken(ShareName),
    /// A link is in the path of what is to be bound.
    #[error("{0} leads over a link; what is shared is named by a path without any")]
    SourceLed(HostPath),
    /// There is a link or a mount where there must be none.
    #[error("{0} in the shared directory is a link, or leads out of it; nothing is done with it")]
    Led(ShareName),
    /// Files are where only a place for a mount was made.
    #[error("{0} in the shared directory has files in it that nobody put there; they are left")]
    NotEmpty(ShareName),
}

impl ShareError {
    pub(crate) fn of(step: impl FnOnce() -> Step) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { step: step(), source: errno.into() }
    }
}
