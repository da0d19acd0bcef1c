//! The agent in a real machine, spoken to as a host speaks to it: what no test without a kernel of its own can show.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

mod guest;
mod images;
mod logs;
mod services;
mod storages;
