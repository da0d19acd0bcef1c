//! The code that `build.rs` generates, exempt from this workspace's lints.
#![expect(
    clippy::allow_attributes,
    clippy::cast_possible_truncation,
    missing_debug_implementations,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
