//! From the kernel's first process to a served agent.

mod filesystem;
mod init;
mod ports;
mod root;
mod serve;

pub use init::{power_off, prepare_process, run_init};
