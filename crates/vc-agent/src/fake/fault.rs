//! What may go wrong with a call, whichever it is.

use std::num::NonZeroU32;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent refuses; nothing was done.
    Refuse,
    /// The agent never answers; nothing was done.
    Hang,
    /// The agent does what it was asked to, but its answer comes after the deadline.
    AnswerLate,
    /// The connection ends, for this call and all later ones; nothing was done.
    Disconnect,
}

/// Which call goes wrong, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) call: NonZeroU32,
    pub(super) fault: Fault,
}
