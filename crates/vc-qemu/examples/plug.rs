//! How long a plug takes until the guest has the disk's node, next to the same over raw QMP: two machines take turns, so
//! that what else the host does disturbs both alike. For `cargo xtask bench plug`, which makes the image.
//!
//! `plug GUEST_IMAGE ROUNDS ACCELERATOR`: the image's `/init` is the example `disk_news` of `vc-guest`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "plug/raw.rs"]
mod raw;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vc_device::{Access, BlockSpec};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::{Qemu, QemuConfig, QemuMachine};
use vc_types::{Deadline, HostPath};

use raw::RawMachine;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Many times what anything here takes under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a console is looked at.
const GLANCE: Duration = Duration::from_micros(200);

/// How long the steps of a round took: from the first command to its answer, to the node in the guest; and from the
/// request to unplug to the end of the device.
#[derive(Clone, Copy)]
struct Round {
    answered: Duration,
    seen: Duration,
    unplugged: Duration,
}

#[tokio::main]
async fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, rounds, accelerator] = &args[..] else {
        return Err("usage: plug GUEST_IMAGE ROUNDS ACCELERATOR".into());
    };
    let rounds: usize = rounds.parse()?;
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    std::fs::File::create(&disk)?.set_len(1 << 20)?;
    let image = std::path::absolute(image)?;
    let path = |name| HostPath::new(image.join(name));
    let (kernel, initrd, dir) = (path("vmlinux")?, path("initrd")?, HostPath::new(directory.path())?);
    let mut spec = MachineSpec::new("plug".parse()?, kernel, initrd, dir);
    spec.accelerator = accelerator.parse()?;
    let ours = Qemu::new(QemuConfig::default()).launch(&spec, soon()).await?;
    let mut raw = RawMachine::launch(&image, accelerator, directory.path())?;
    wait_for(|| ours.console_tail(), "watching", 1)?;
    wait_for(|| raw.console(), "watching", 1)?;

    let mut all = Vec::new();
    for round in 1..=rounds {
        all.push((by_raw_qmp(&mut raw, &disk, round)?, by_vc(&ours, &disk, round).await?));
    }
    ours.stop(soon()).await?;
    print(&all, accelerator);
    Ok(())
}

fn by_raw_qmp(machine: &mut RawMachine, disk: &Path, round: usize) -> Fallible<Round> {
    let started = Instant::now();
    machine.plug(disk)?;
    let answered = started.elapsed();
    wait_for(|| machine.console(), "+vd", round)?;
    let seen = started.elapsed();
    let started = Instant::now();
    machine.unplug()?;
    let unplugged = started.elapsed();
    wait_for(|| machine.console(), "-vd", round)?;
    Ok(Round { answered, seen, unplugged })
}

async fn by_vc(machine: &QemuMachine, disk: &Path, round: usize) -> Fallible<Round> {
    let name = "d0".parse()?;
    let started = Instant::now();
    let file = Arc::new(std::fs::File::open(disk)?);
    let spec = BlockSpec::new("d0".parse()?, file, HostPath::new(disk)?, Access::ReadOnly);
    machine.plug(&spec.into(), soon()).await?;
    let answered = started.elapsed();
    wait_for(|| machine.console_tail(), "+vd", round)?;
    let seen = started.elapsed();
    let started = Instant::now();
    machine.unplug(&name, soon()).await?;
    let unplugged = started.elapsed();
    wait_for(|| machine.console_tail(), "-vd", round)?;
    Ok(Round { answered, seen, unplugged })
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// Waits until a console has so many lines that begin like this.
#[expect(clippy::disallowed_methods, reason = "a timer of tokio is no finer than what is measured")]
fn wait_for(console: impl Fn() -> String, start: &str, count: usize) -> Fallible<()> {
    let deadline = soon();
    while console().lines().filter(|line| line.starts_with(start)).count() < count {
        if deadline.is_over() {
            return Err(format!("the guest did not write {start:?} in time: {}", console()).into());
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

fn print(all: &[(Round, Round)], accelerator: &str) {
    println!("\n{} rounds with {accelerator}: medians in ms, and the median of the ratios", all.len());
    println!("{:<36} {:>8} {:>8} {:>8}", "", "raw QMP", "vc", "ratio");
    let rows = ["plug: QEMU has answered", "plug: the guest has the node", "unplug: QEMU has let go"];
    for (row, what) in rows.into_iter().enumerate() {
        let ms = |round: &Round| [round.answered, round.seen, round.unplugged][row].as_secs_f64() * 1000.0;
        let raw = median(all.iter().map(|(raw, _)| ms(raw)));
        let ours = median(all.iter().map(|(_, ours)| ms(ours)));
        let ratio = median(all.iter().map(|(raw, ours)| ms(ours) / ms(raw)));
        println!("{what:<36} {raw:>8.1} {ours:>8.1} {ratio:>7.2}x");
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
