//! `cargo xtask fuzz`: feeds any bytes to every parser that reads what others wrote.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Need};
use crate::process;
use crate::tools::{self, CARGO_FUZZ};
use crate::workspace::Workspace;

/// What one target came to.
#[derive(Debug)]
struct Run {
    target: String,
    /// The inputs tried, or what was found.
    executions: Result<u64>,
}

/// Runs each target for `each`, as many at a time as there are processors. The number of targets.
pub(crate) fn run(workspace: &Workspace, each: Duration) -> Result<u32> {
    let targets = targets(workspace)?;
    build(workspace)?;
    let runs = run_all(workspace, &targets, each)?;
    let mut found = Vec::new();
    for run in &runs {
        match &run.executions {
            Ok(executions) => println!("{:<18} {executions:>12} inputs, no fault", run.target),
            Err(error) => found.push(format!("{}: {error:#}", run.target)),
        }
    }
    ensure!(found.is_empty(), "fuzzing found faults\n{}", found.join("\n"));
    Ok(u32::try_from(runs.len())?)
}

/// As [`run`], with the time for all targets together.
pub(crate) fn smoke(workspace: &Workspace, all: Duration) -> Result<u32> {
    let turns = targets(workspace)?.len().div_ceil(parallel());
    run(workspace, all / u32::try_from(turns)?)
}

/// The names of the targets, which are those of their files.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let directory = workspace.root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().context("a target without a name")?;
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "{} has no targets", directory.display());
    Ok(names)
}

fn parallel() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn build(workspace: &Workspace) -> Result<()> {
    // libFuzzer is C++, and built from source.
    apt::install(&[Need { program: "c++", package: "g++" }])?;
    tools::ensure(workspace, CARGO_FUZZ)?;
    process::show(&mut cargo_fuzz(workspace, "build"))
}

/// The pinned compiler has the sanitizers, behind flags that it takes from itself and from nightly compilers only
/// unless told that it is one of them.
fn cargo_fuzz(workspace: &Workspace, command: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["fuzz", command, "--fuzz-dir"]).arg(workspace.root.join("fuzz"));
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo
}

fn run_all(workspace: &Workspace, targets: &[String], each: Duration) -> Result<Vec<Run>> {
    let left = Mutex::new(targets.iter());
    let next = || left.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    let worker = || {
        let mut runs = Vec::new();
        while let Some(target) = next() {
            println!("fuzzing {target} for {} s", each.as_secs());
            runs.push(Run { target: target.clone(), executions: run_target(workspace, target, each) });
        }
        runs
    };
    let mut runs: Vec<Run> = thread::scope(|scope| {
        let workers: Vec<_> = (0..parallel()).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    runs.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(runs)
}

/// Runs one target from its seeds and from what earlier runs found; the number of inputs tried.
fn run_target(workspace: &Workspace, target: &str, each: Duration) -> Result<u64> {
    let fuzz = workspace.root.join("fuzz");
    let corpus = fuzz.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut command = cargo_fuzz(workspace, "run");
    command.arg(target).arg(&corpus).arg(fuzz.join("seeds").join(target));
    command.arg("--").arg(format!("-max_total_time={}", each.as_secs())).arg("-print_final_stats=1");
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo fuzz")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", fault(target, &text));
    executions(&text).with_context(|| format!("libFuzzer does not say what it did\n{text}"))
}

/// What was found, out of all that libFuzzer and cargo-fuzz write: the panic or the sanitizer's report, and the input.
fn fault(target: &str, text: &str) -> String {
    const REPORT: usize = 8;
    let is_report = |line: &&str| line.contains("panicked at") || line.contains("ERROR: ");
    let report: Vec<&str> = text.lines().skip_while(|line| !is_report(line)).take(REPORT).collect();
    let input = text.lines().map(str::trim).find(|line| line.starts_with("fuzz/artifacts/"));
    match input {
        Some(input) if !report.is_empty() => format!(
            "{}\nrun it again with: RUSTC_BOOTSTRAP=1 cargo fuzz run {target} {input}",
            report.join("\n")
        ),
        _ => text.to_owned(),
    }
}

/// What libFuzzer reports with `-print_final_stats=1`.
fn executions(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok().filter(|executions| *executions > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executions_are_read() {
        let text =
            "Done 9504 runs in 6 second(s)\nstat::number_of_executed_units: 9504\nstat::peak_rss_mb: 255\n";
        assert_eq!(executions(text), Some(9504));
        assert_eq!(executions("stat::number_of_executed_units: 0\n"), None);
    }

    #[test]
    fn a_fault_is_told_with_its_input() {
        let text = "#1 NEW cov: 5\nthread 'x' panicked at src/escape.rs:18:\nplanted\n\nFailing input:\n\n\tfuzz/artifacts/t/crash-1\n";
        let told = fault("t", text);
        assert!(told.starts_with("thread 'x' panicked at src/escape.rs:18:\nplanted"), "{told}");
        assert!(told.ends_with("cargo fuzz run t fuzz/artifacts/t/crash-1"), "{told}");
        assert_eq!(fault("t", "could not compile"), "could not compile");
    }

    #[test]
    fn each_target_has_seeds() {
        let workspace = Workspace::load().unwrap();
        for target in targets(&workspace).unwrap() {
            let seeds = workspace.root.join("fuzz/seeds").join(&target);
            assert!(fs::read_dir(&seeds).unwrap().next().is_some(), "{}", seeds.display());
        }
    }
}
