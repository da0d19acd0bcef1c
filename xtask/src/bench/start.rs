//! `vc run` to its first output, next to the least that it could take: the same QEMU and daemon started by hand until
//! the agent answers, and what the guest then needs to create and start the container.

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::series::Series;
use super::{Options, bare, container, ms};
use crate::layers;
use crate::workspace::Workspace;

/// What is shown.
const ROWS: [&str; 5] = [
    "by hand: from the daemon's start to the agent's answer",
    "in the guest: create, start, and the way to the output",
    "vc run: from its start to the first output",
    "vc run: from its start to the first output, to both",
    "vc run: from the container's exit to the end of all",
];

/// Measures, and prints medians and the ratio.
pub(super) fn measure(workspace: &Workspace, image: &Path, vc: &Path, options: &Options) -> Result<()> {
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let layer = layers::make_base(directory.path())?.image;
    let [mut by_hand, mut in_guest, mut run, mut teardown]: [Series; 4] = Default::default();
    let mut ratios = Vec::new();
    let rounds = options.rounds.unwrap_or(5);
    for round in 1..=rounds {
        let bare = bare::boot(workspace, image, &options.accelerator)?;
        let timed = timed(workspace, vc, image, &layer, &options.accelerator)?;
        let least = bare.answer + timed.in_guest;
        let ratio = timed.output.as_secs_f64() / least.as_secs_f64();
        println!(
            "round {round}: by hand {:.0} ms and {:.0} ms in the guest, vc run {:.0} ms ({ratio:.3}x)",
            ms(bare.answer),
            ms(timed.in_guest),
            ms(timed.output)
        );
        by_hand.push(bare.answer);
        in_guest.push(timed.in_guest);
        run.push(timed.output);
        teardown.push(timed.teardown);
        ratios.push(ratio);
        if round == rounds {
            println!("\nthe last round's timeline of vc:\n{}", timed.timeline.trim_end());
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("\n{rounds} rounds with {}: medians in ms.", options.accelerator);
    let times = [&by_hand, &in_guest, &run].map(|series| format!("{:.0}", ms(series.median())));
    let ratio = format!("{:.3}x", ratios[(ratios.len() - 1) / 2]);
    let end = format!("{:.0}", ms(teardown.median()));
    let figures = times.into_iter().chain([ratio, end]);
    ROWS.iter().zip(figures).for_each(|(what, figure)| println!("{what:<56} {figure:>8}"));
    Ok(())
}

/// A `vc run`, timed from outside.
struct Timed {
    /// From the start of the process to the first byte of the container's output.
    output: Duration,
    /// What of that the guest took to create and start the container, and the command to write.
    in_guest: Duration,
    /// From the news of the container's exit to the end of the process.
    teardown: Duration,
    timeline: String,
}

fn timed(workspace: &Workspace, vc: &Path, image: &Path, layer: &Path, accelerator: &str) -> Result<Timed> {
    let mut command = workspace.vc(vc);
    command.env("VC_GUEST", image).args(["run", "--timeline", "--accel", accelerator]);
    command.arg("--layer").arg(layer).args(["--", "echo", "ready"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().context("cannot start vc")?;
    let errors = BufReader::new(child.stderr.take().context("no pipe")?);
    let errors = thread::spawn(move || std::io::read_to_string(errors));
    let mut output = child.stdout.take().context("no pipe")?;
    let read = output.read(&mut [0; 16]).context("cannot read vc's output")?;
    let first_output = began.elapsed();
    let status = child.wait()?;
    let timeline = errors.join().expect("a reader does not panic").context("cannot read vc's timeline")?;
    ensure!(status.success() && read > 0, "vc run failed: {status}\n{timeline}");
    let in_guest = in_guest(&timeline).context("vc's timeline lacks a phase")?;
    let teardown = teardown(&timeline).context("vc's timeline lacks a phase")?;
    Ok(Timed { output: first_output, in_guest, teardown, timeline })
}

/// As vc's calls to the agent took.
fn in_guest(timeline: &str) -> Option<Duration> {
    let create = container::row(timeline, "create container")?.1?;
    let start = container::row(timeline, "start container")?.0;
    let output = container::row(timeline, "first output")?.0;
    Duration::try_from_secs_f64((create + output - start) / 1000.0).ok()
}

fn teardown(timeline: &str) -> Option<Duration> {
    let exit = container::row(timeline, "exit")?.0;
    let end = container::row(timeline, "end")?.0;
    Duration::try_from_secs_f64((end - exit) / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_takes_the_creation_and_the_way_from_the_start_to_the_output() {
        let timeline = "phase                    at ms   took ms\ncreate container        1620.5      30.0\n\
            start container         1700.0       2.0\nfirst output            1800.5          \n\
            exit                    1810.0          \nend                     1900.0\n";
        let ms = |time: Option<Duration>| time.map(|time| (time.as_secs_f64() * 1000.0).round());
        assert_eq!((ms(in_guest(timeline)), ms(teardown(timeline))), (Some(131.0), Some(90.0)));
    }
}
