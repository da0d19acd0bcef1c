//! A command with a terminal.

use crate::run::{Bench, assert_code, feed, text};

#[test]
fn the_command_has_a_terminal() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(
        bench.vc(&["-t"], &["sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo all; echo err >&2"]),
    );
    assert_code(&output, 0);
    // A terminal has one output, and ends lines with both characters.
    assert_eq!(text(&output.stdout), "all\r\nerr\r\n");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn what_is_typed_arrives() {
    let Some(bench) = Bench::new() else { return };
    let output = feed(bench.vc(&["-t", "-i"], &["sh", "-c", "read line; echo \"<$line>\""]), b"typed\n");
    assert_code(&output, 0);
    let said = text(&output.stdout);
    assert!(said.ends_with("<typed>\r\n"), "{said:?}");
    bench.leftovers.assert_none();
}

#[test]
fn the_end_of_the_input_reaches_a_terminal() {
    let Some(bench) = Bench::new() else { return };
    let output = feed(bench.vc(&["-t", "-i"], &["sh", "-c", "cat >/dev/null; echo over"]), b"typed\n");
    assert_code(&output, 0);
    assert!(text(&output.stdout).ends_with("over\r\n"), "{:?}", text(&output.stdout));
    bench.leftovers.assert_none();
}
