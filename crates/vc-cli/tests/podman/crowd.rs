//! Many containers: in a row, and at once. `cargo xtask soak` has more of them than the tests.

use std::process::Stdio;

use crate::engine::Engine;

/// How many, in a row and at once, unless `VC_SOAK` says another number in a row.
const USUAL: (usize, usize) = (2, 4);
const MANY: usize = 8;

#[test]
fn many_containers_leave_nothing() {
    let Some(engine) = Engine::with_vc() else { return };
    let asked = std::env::var("VC_SOAK").ok().and_then(|number| number.parse().ok());
    let (in_a_row, at_once) = asked.map_or(USUAL, |number| (number, MANY));
    for number in 0..in_a_row {
        let said = engine.succeed(&format!("podman run --rm --network none $B echo {number}"));
        assert_eq!(said, format!("{number}\n"));
        assert_eq!(engine.left(), Vec::<String>::new(), "after {number}");
    }
    let line = |number| {
        format!("podman run --rm --name n{number} --network none $B sh -c 'echo {number}; exit {number}'")
    };
    let runs: Vec<_> = (0..at_once)
        .map(|number| engine.command(&line(number)).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let output = run.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"));
        assert_eq!(output.status.code(), i32::try_from(number).ok());
    }
    assert_eq!(engine.left(), Vec::<String>::new());
}
