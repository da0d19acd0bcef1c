//! Launches in a row: each leaves nothing, and this process does not grow.
//!
//! A few with the other tests; `cargo xtask soak` sets `VC_SOAK` to many more.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, launch, signal, soon};
use nix::sys::signal::Signal;
use vc_hypervisor::Machine;
use vc_tests::soak::{self, Held};
use vc_tests::{GuestImage, Leftovers};

/// The first launches also fill caches and pools.
const WARM: usize = 5;

/// What is held once that no longer changes, and no more than `most` descriptors.
async fn settled(most: usize) -> Held {
    let mut last = Held::now();
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = Held::now();
        if now.descriptors == last.descriptors && now.descriptors <= most {
            return now;
        }
        last = now;
    }
}

/// Zombies count: who started a process has to wait for its end.
fn children() -> String {
    let pid = std::process::id();
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| {
            let tid = task.file_name().into_string().unwrap();
            std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).ok()
        })
        .collect()
}

#[tokio::test]
async fn launches_in_a_row_leave_nothing() {
    let Some(image) = GuestImage::find() else { return };
    let launches = soak::times(12);
    let leftovers = Leftovers::new();
    let mut warm = None;
    let (mut told, mut launched) = (Vec::new(), Vec::new());
    for round in 0..launches {
        let started = Instant::now();
        let machine = launch(&image, &leftovers).await;
        launched.push(started.elapsed());
        // A third is stopped, a third killed, a third dropped.
        match round % 3 {
            0 => drop(machine.stop(soon()).await.unwrap()),
            1 => {
                let killed = Instant::now();
                signal(leftovers.qemu().expect("QEMU runs"), Signal::SIGKILL);
                machine.exited().await;
                told.push(killed.elapsed());
                machine.stop(soon()).await.unwrap();
            }
            _ => {
                drop(machine);
                // What a drop has killed, the runtime still has to wait for.
                let reaped = async {
                    while !children().is_empty() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, reaped).await.unwrap();
            }
        }
        leftovers.assert_none();
        assert_eq!(children(), "", "round {round}");
        // The tasks of a machine that has ended let go of it a moment later.
        let most = warm.as_ref().map_or(usize::MAX, |warm: &Held| warm.descriptors);
        let now = tokio::time::timeout(PATIENCE, settled(most)).await;
        let now = now.unwrap_or_else(|_| panic!("round {round}: {warm:?} and now {:?}", Held::now()));
        match &warm {
            None if round + 1 == WARM => warm = Some(now),
            None => {}
            Some(warm) => {
                assert!(now.threads <= warm.threads + 1, "round {round}: {now:?}, {warm:?}");
                assert!(now.resident < warm.resident + (4 << 20), "round {round}: {now:?}, {warm:?}");
            }
        }
    }
    for (what, times) in [("launch to commands", &mut launched), ("kill -9 to told", &mut told)] {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{launches} launches: {what}: median {median:.1?}, worst {worst:.1?}");
    }
    println!("{launches} launches: after {WARM} {warm:?}, at the end {:?}", Held::now());
}
