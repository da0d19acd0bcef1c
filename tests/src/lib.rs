//! What the tests with a real machine share.
//!
//! A function that needs what this host lacks returns `None` and prints `skipped:` with the reason.
#![forbid(unsafe_code)]

pub mod host;
mod image;
mod layers;
mod leftovers;
mod mounted;
mod nydus;
pub mod soak;
mod spec;
pub mod vfio;

pub use image::GuestImage;
pub use layers::{Layers, fill_with_busybox};
pub use leftovers::{Leftovers, processes_naming};
pub use mounted::Mounted;
pub use nydus::{Nydus, Rafs};
pub use spec::{shell, shell_process};

/// Prints why a test does not apply here.
pub fn skip(reason: &str) {
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    {
        eprintln!("skipped: {reason}");
    }
}

/// Whether this process is root; prints why the test does not apply otherwise.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("it mounts, which only root may");
    }
    root
}
