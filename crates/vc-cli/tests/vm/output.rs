//! Streams and exit codes.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::run::{Bench, assert_code, feed, spawn, text};

/// What sha256sum says of 10 MiB of zeros.
const TEN_MIB_OF_ZEROS: &str = "e5b844cc57f57094ea4585e235f36c78c1cd222262bb89d53c94dcb4d6b3e55d";
const TEN_MIB: usize = 10 << 20;

#[test]
fn both_streams_and_the_exit_code_arrive() {
    let Some(bench) = Bench::new() else { return };
    streams_and_code(&bench);
}

#[test]
fn both_streams_and_the_exit_code_arrive_for_an_unprivileged_user() {
    let Some(bench) = Bench::unprivileged() else { return };
    streams_and_code(&bench);
}

fn streams_and_code(bench: &Bench) {
    let output = bench.shell("echo out; echo err >&2; exit 7");
    assert_code(&output, 7);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n".into(), "err\n".into()));
}

#[test]
fn ten_mib_of_input_arrive_whole() {
    let Some(bench) = Bench::new() else { return };
    ten_mib_in(&bench);
}

#[test]
fn ten_mib_of_input_arrive_whole_for_an_unprivileged_user() {
    let Some(bench) = Bench::unprivileged() else { return };
    ten_mib_in(&bench);
}

fn ten_mib_in(bench: &Bench) {
    let output = feed(bench.vc(&["-i"], &["sha256sum"]), &vec![0; TEN_MIB]);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), format!("{TEN_MIB_OF_ZEROS}  -\n"));
    bench.leftovers.assert_none();
}

#[test]
fn ten_mib_of_output_arrive_whole() {
    let Some(bench) = Bench::new() else { return };
    // A pattern with a period that no buffer's size divides, so that no loss goes unseen.
    let script = "yes 0123456789abcdef-0123 | head -c 10485760; echo end >&2";
    let output = bench.shell(script);
    assert_code(&output, 0);
    assert_eq!(output.stdout.len(), TEN_MIB);
    let line = b"0123456789abcdef-0123\n";
    assert!(output.stdout.iter().zip(line.iter().cycle()).all(|(got, wanted)| got == wanted));
    assert_eq!(text(&output.stderr), "end\n");
}

#[test]
fn the_end_of_the_input_closes_it_and_nothing_else() {
    let Some(bench) = Bench::new() else { return };
    let output = feed(bench.vc(&["-i"], &["sh", "-c", "cat; echo after"]), b"before\n");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "before\nafter\n");
    bench.leftovers.assert_none();
}

#[test]
fn without_interactive_the_input_is_empty() {
    let Some(bench) = Bench::new() else { return };
    let output = feed(bench.vc(&[], &["sh", "-c", "wc -c"]), b"");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "0\n");
    bench.leftovers.assert_none();
}

#[test]
fn a_command_that_a_signal_ended_gives_128_and_the_signal() {
    let Some(bench) = Bench::new() else { return };
    // The shell is process 1 of its namespace, which no signal of its own can end; its child can.
    let output = bench.shell("sh -c 'kill -9 $$'; exit $?");
    assert_code(&output, 137);
}

#[test]
fn a_reader_who_leaves_ends_the_command() {
    let Some(bench) = Bench::new() else { return };
    let mut child = spawn(bench.vc(&[], &["yes"]));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    // The pipe is closed here.
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(137));
    bench.leftovers.assert_none();
}

#[test]
fn environment_directory_and_user_are_as_asked() {
    let Some(bench) = Bench::new() else { return };
    let options = ["-e", "GREETING=hello there", "-w", "/etc", "-u", "1000:2000"];
    let script = "echo $GREETING; pwd; id -u; id -g";
    let output = bench.finish(bench.vc(&options, &["sh", "-c", script]));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "hello there\n/etc\n1000\n2000\n");
}

#[test]
fn the_container_has_namespaces_and_a_cgroup_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let script = "echo $$; hostname; cat /proc/1/comm; cat /proc/self/cgroup; ls /proc | grep -c '^[0-9]'";
    let output = bench.shell(script);
    assert_code(&output, 0);
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..3], ["1", "vc", "sh"], "{said}");
    assert!(lines[3].starts_with("0::/"), "{said}");
    assert!(lines[4].parse::<u32>().unwrap() <= 4, "sees only its own processes: {said}");
}

#[test]
fn the_timeline_tells_every_phase() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--timeline"], &["echo", "x"]));
    assert_code(&output, 0);
    let said = text(&output.stderr);
    for phase in [
        "launch",
        "boot",
        "prepare guest",
        "plug layers",
        "create container",
        "start container",
        "first output",
        "end",
    ] {
        assert!(said.lines().any(|line| line.starts_with(phase)), "no {phase}: {said}");
    }
}

#[test]
fn a_signal_goes_to_the_command() {
    let Some(bench) = Bench::new() else { return };
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 1; done";
    let mut command = bench.vc(&[], &["sh", "-c", script]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        nix::sys::signal::SIGTERM,
    )
    .unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(42));
    bench.leftovers.assert_none();
}

#[test]
fn a_command_that_closed_its_outputs_may_read_on() {
    let Some(bench) = Bench::new() else { return };
    let script = "exec >&- 2>&-; test \"$(wc -c)\" = 300000 && exit 9";
    let output = feed(bench.vc(&["-i"], &["sh", "-c", script]), &[b'x'; 300_000]);
    assert_code(&output, 9);
    bench.leftovers.assert_none();
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let Some(bench) = Bench::new() else { return };
    let mut command = bench.vc(&[], &["sh", "-c", "echo hello; sleep 600"]);
    command.stdin(Stdio::null()).stdout(std::fs::File::create("/dev/full").unwrap()).stderr(Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_code(&output, 125);
    assert!(text(&output.stderr).contains("No space left"), "{}", text(&output.stderr));
    bench.leftovers.assert_none();
}

#[test]
fn streams_that_do_not_block_lose_nothing() {
    let Some(bench) = Bench::new() else { return };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // The flag belongs to the socket, so the child finds it set.
    theirs.set_nonblocking(true).unwrap();
    let input = std::os::fd::OwnedFd::from(theirs.try_clone().unwrap());
    let mut command =
        bench.vc(&["-i"], &["sh", "-c", "read line; echo \"$line\"; head -c 1000000 /dev/zero"]);
    let mut child = command.stdin(input).stdout(std::os::fd::OwnedFd::from(theirs)).spawn().unwrap();
    drop(command);
    let mut from = BufReader::new(ours.try_clone().unwrap());
    std::io::Write::write_all(&mut &ours, b"late\n").unwrap();
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).unwrap();
    assert_eq!((line.as_str(), rest.len()), ("late\n", 1_000_000));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    bench.leftovers.assert_none();
}
