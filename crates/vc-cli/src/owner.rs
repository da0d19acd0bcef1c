//! The owner of a container: the process that `vc create` leaves behind, and that ends as the container does.
//!
//! ```text
//!  vc create ──orders──> owner ──vc-container──> machine, guest
//!  vc start, kill, … ──socket──┘   └── streams ── the creator's standard streams, or a pseudoterminal
//! ```
//!
//! A monitor such as conmon is the parent of `vc create`, becomes the owner's, and takes the owner's exit code for
//! that of the container.
//!
//! The other containers of a pod are in the machine of its first one, and so have its owner. A process that `vc create`
//! leaves behind stays with each of them for its monitor, as one does with a process that was executed:
//!
//! ```text
//!  vc create ──orders──> vc attend ──socket──> owner of the pod's first container
//!  vc start, kill, … ──socket of the member──────┘
//! ```

mod exec;
mod life;
mod make;
mod member;
mod orders;
mod place;
mod pod;
mod serve;
mod stats;

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::process::setsid;

use crate::failure::{Failure, RUNTIME};
use crate::log;
use crate::oci::protocol::{read_frame, write_frame};
use crate::oci::remove::remove;
use crate::oci::root::{ContainerDir, Lock};
use crate::signals::Signals;
use crate::sys;

pub(crate) use orders::{Answer, Member, Orders};
pub(crate) use place::{Mover, Place, movements};

/// What the process is told to do.
pub(crate) const COMMAND: &str = "owner";
/// The descriptor under which the creator is reached.
pub(crate) const CREATOR: RawFd = 3;
/// The descriptor of the container's lock.
pub(crate) const LOCK: RawFd = 4;

/// Makes the container that was ordered, and owns it until its end.
pub(crate) fn own() -> ExitCode {
    match prepare() {
        Ok((creator, orders, lock)) => {
            let (mover, movements) = movements();
            let work = std::thread::spawn(move || run(creator, orders, lock, mover));
            // This thread is where the process is seen.
            movements.follow();
            work.join().unwrap_or(ExitCode::from(RUNTIME))
        }
        // The creator reads its exit, and tells.
        Err(failure) => failure.report(),
    }
}

fn prepare() -> Result<(UnixStream, Orders, Lock), Failure> {
    let failed = |error| Failure::step("take orders; `vc owner` is for `vc create`", error);
    let mut creator = UnixStream::from(sys::inherited(CREATOR).map_err(failed)?);
    let lock = Lock::held(sys::inherited(LOCK).map_err(failed)?.into());
    let orders: Orders =
        read_frame(&mut creator).map_err(failed)?.ok_or_else(|| Failure::message("no orders came"))?;
    // Away from the terminal and the process group of whoever called `vc create`. As the leader of a group, which
    // the owner is when it was started by hand, it would be refused, and is away already.
    let _ = setsid();
    Ok((creator, orders, lock))
}

fn run(mut creator: UnixStream, orders: Orders, lock: Lock, mover: Mover) -> ExitCode {
    let dir = ContainerDir::of_owner(orders.dir.clone());
    if let Err(failure) = log::to_file(&dir.log_file(), log::level(orders.debug)) {
        return fail(&mut creator, failure);
    }
    // One thread for all: there is little to do, and each one costs memory.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&mut creator, Failure::step("start", error)),
    };
    let signals = runtime.block_on(async { Signals::listen() });
    let made = signals
        .map_err(|error| Failure::step("listen for signals", error))
        .and_then(|signals| Ok((runtime.block_on(make::make(orders, &dir, &creator, mover))?, signals)));
    let exit = match made {
        Ok(((pod, made), signals)) => {
            // Orders, plans and specifications, and what made the container of them, are needed no more.
            sys::give_memory_back();
            let code = runtime.block_on(serve::serve(pod, made, signals, &mut creator));
            drop(lock);
            code.map_or_else(|failure| fail(&mut creator, failure), ExitCode::from)
        }
        Err(failure) => {
            let removed = remove(dir, lock);
            let failure = match removed {
                Ok(()) => failure,
                Err(left) => failure.and(&left),
            };
            fail(&mut creator, failure)
        }
    };
    // A thread may still be blocked in a read of the standard input; nothing of ours waits for it.
    runtime.shutdown_background();
    exit
}

/// Tells the creator, if it is still there.
fn fail(creator: &mut UnixStream, failure: Failure) -> ExitCode {
    tracing::error!("{}", failure.for_engines());
    let answer = Answer::Failed { code: failure.code(), message: failure.line() };
    // A creator that is gone has nobody to tell.
    let _ = write_frame(creator, &answer);
    ExitCode::from(failure.code())
}
