//! The device model from outside: a table for each behaviour, and a test for each defect that it must
//! not have (`l16_…`, `r1_…`: numbers of defects in Kata's runtimes, Go and Rust).
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail with the test")]

mod access;
mod annotation;
mod attach;
mod captured;
mod detach;
mod directory;
mod filter;
mod linux_device;
mod mount;
mod restore;
mod topology;
mod tree;
mod vfio_groups;
mod vfio_plan;
