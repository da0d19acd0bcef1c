//! The order of boot, and its end.

use super::{filesystem, root, serve};
use crate::cmdline::parse_cmdline;
use crate::log::{chain, start_log};
use crate::modules::ModuleLoader;
use crate::network::loopback_up;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;
use std::time::Instant;

/// Why the guest cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub(super) enum BootError {
    #[error("cannot mount {0}")]
    Mount(&'static str, #[source] Errno),
    #[error("cannot {0}")]
    Step(&'static str, #[source] std::io::Error),
}

/// The first steps of every process of this program, in place of those of Rust's own start-up code.
///
/// That code aborts when a standard stream is closed and there is no `/dev/null`, which is how the
/// kernel starts a first process without a console. Here `/dev` is mounted first then.
pub fn prepare_process() {
    let is_closed = |number: i32| !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists();
    if nix::unistd::getpid().as_raw() == 1 {
        // Without /dev there may be no null device yet; /proc is not there either.
        filesystem::mount_dev();
        fill_standard_streams();
    } else if (0..3).any(is_closed) {
        fill_standard_streams();
    }
    // As Rust's start-up code does: a closed pipe is an error, not the end of the process.
    let _ = crate::sys::ignore_signal(Signal::SIGPIPE);
}

/// Opens the null device until 0, 1 and 2 are taken.
fn fill_standard_streams() {
    while let Ok(descriptor) = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        if descriptor.as_raw_fd() > 2 {
            return;
        }
        // It stays open as a standard stream.
        let _ = descriptor.into_raw_fd();
    }
}

/// Runs the agent as the first process, until the host asks for the end or something fails.
pub fn run_init() {
    let started = Instant::now();
    crate::sys::keep_freed_memory();
    greet();
    if let Err(error) = boot(started) {
        tracing::error!(error = chain(&error), "the agent cannot run");
    }
}

/// Tells the console that the kernel is done. With `quiet` this is the first thing there, so whoever
/// watches it knows when the agent was started.
fn greet() {
    let line = concat!("vc-guest ", env!("CARGO_PKG_VERSION"), "\n");
    let console = std::fs::File::options().write(true).open("/dev/console");
    // A machine without a console has nobody to tell.
    let _ = console.and_then(|mut console| console.write_all(line.as_bytes()));
}

/// Powers the machine off; what files hold is on their disks then.
pub fn power_off() -> ! {
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    // The kernel panics when its first process ends, which ends the machine as well.
    tracing::error!(%error, "cannot power off");
    std::process::exit(1)
}

fn boot(started: Instant) -> Result<(), BootError> {
    root::move_to_memory()?;
    let modules = Arc::new(ModuleLoader::open("/lib/modules"));
    let boot_modules = serve::BootModules::start(Arc::clone(&modules));
    filesystem::mount_all()?;
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let settings = parse_cmdline(&cmdline);
    let log = start_log(settings.log, settings.log_port.is_some());
    tracing::info!(milliseconds = started.elapsed().as_millis(), "file systems are mounted");
    if let Err(error) = loopback_up() {
        tracing::warn!(error = chain(&error), "no loopback interface");
    }
    crate::limits::raise_open_files();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .map_err(|error| BootError::Step("start the runtime", error))?
        .block_on(serve::serve(modules, boot_modules, settings, log, started))
}
