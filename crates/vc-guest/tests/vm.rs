//! The agent in a real machine, asked over the wire as a Kata runtime would ask it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "vm/guest.rs"]
mod guest;
#[path = "vm/lifecycle.rs"]
mod lifecycle;
#[path = "vm/oci.rs"]
mod oci;
#[path = "vm/robustness.rs"]
mod robustness;
#[path = "vm/rows.rs"]
mod rows;
