//! The process that stays with a container in the machine of another: engines take it for the container.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use super::attend::{self, Orders};
use super::cgroup;
use super::protocol::Ask;
use super::remove::remove;
use super::root::{ContainerDir, Lock};
use crate::failure::{Failure, RUNTIME};
use crate::owner::{Place, movements};

/// Has the container made, and stays with it to its end. A container that is not made leaves nothing.
pub(super) fn attend(creator: UnixStream, mut orders: Orders, lock: Lock) -> ExitCode {
    let Ask::Add { member } = &mut orders.ask else {
        return Failure::message("a container's lock came with orders for something else").report();
    };
    member.record.pid = Some(std::process::id());
    cgroup::enter(&member.record.cgroups);
    let place = Place::of(&member.record.rootfs, &member.record.bundle, &member.spec);
    let dir = ContainerDir::of_owner(member.dir.clone());
    let (mover, movements) = movements();
    let work = std::thread::spawn(move || {
        let show = || {
            let shown = mover.go(place);
            shown.map_err(|error| Failure::step("show the container's files to engines", error))
        };
        attend::attend_for(creator, &orders, show, || remove(dir, lock))
    });
    // This thread is where the process is seen.
    movements.follow();
    work.join().unwrap_or(ExitCode::from(RUNTIME))
}
