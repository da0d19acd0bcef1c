//! PID 1 of the guest: the agent, or its helper process.
#![no_main]

use std::ffi::{c_char, c_int};
use std::process::ExitCode;

/// The entry point in C's terms: Rust's own start-up code aborts without a console and `/dev/null`.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the name `main` is what the C library calls, and no one else defines it")]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    vc_guest::prepare_process();
    if let Some(code) = vc_guest::run_helper() {
        return if code == ExitCode::SUCCESS { 0 } else { 1 };
    }
    if std::process::id() != 1 {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"vc-guest is the first process of a virtual machine; it does nothing elsewhere\n",
        );
        return 1;
    }
    // Whatever happens to the agent, the machine ends: a guest without its agent is of no use, and
    // the host must not wait for it.
    let _ = std::panic::catch_unwind(vc_guest::run_init);
    vc_guest::power_off()
}
