//! What every operation does in every state, next to what runc does.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::run::Bench;

/// The states of the OCI runtime specification, and the one before them all.
const STATES: [&str; 5] = ["missing", "created", "running", "paused", "stopped"];

/// What is tried in each state, those that change it last. Behind the name the arguments; `ID` is the container.
const OPERATIONS: [(&str, &str); 9] = [
    ("create", "create --bundle BUNDLE ID"),
    ("start", "start ID"),
    ("state", "state ID"),
    ("exec", "exec ID true"),
    ("pause", "pause ID"),
    ("resume", "resume ID"),
    ("kill", "kill ID KILL"),
    ("delete", "delete ID"),
    ("delete --force", "delete --force ID"),
];

/// An OCI runtime with a bundle.
struct Runtime {
    command: Box<dyn Fn() -> Command>,
    bundle: PathBuf,
}

impl Runtime {
    fn run(&self, line: &str) -> (bool, String) {
        let mut command = (self.command)();
        for word in line.split(' ') {
            match word {
                "BUNDLE" => command.arg(&self.bundle),
                word => command.arg(word),
            };
        }
        // The container's streams are those of `create`, so none may be a pipe that is read to its end.
        let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        if line.starts_with("create") {
            let said = self.bundle.join("said");
            let output = output.stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
            let created = output.status().unwrap().success();
            return (created, fs::read_to_string(said).unwrap());
        }
        let output = output.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    fn status(&self, id: &str) -> String {
        let (found, json) = self.run(&format!("state {id}"));
        if !found {
            return "missing".to_owned();
        }
        let state: Value = serde_json::from_str(&json).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the container is in this state.
    fn until(&self, id: &str, wanted: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.status(id) != wanted {
            assert!(std::time::Instant::now() < deadline, "{id} is {}, not {wanted}", self.status(id));
        }
    }

    /// Has the container `t` in this state, a new one if need be.
    fn bring(&self, state: &str) {
        match (&*self.status("t"), state) {
            (is, wanted) if is == wanted => return,
            ("running", "paused") => return assert!(self.run("pause t").0),
            ("paused", "running") => return assert!(self.run("resume t").0),
            _ => assert!(self.run("delete --force t").0),
        }
        let lines: &[&str] = match state {
            "missing" => &[],
            "created" => &["create --bundle BUNDLE t"],
            "running" => &["create --bundle BUNDLE t", "start t"],
            "paused" => &["create --bundle BUNDLE t", "start t", "pause t"],
            _ => &["create --bundle BUNDLE t", "kill t KILL"],
        };
        for line in lines {
            let (done, said) = self.run(line);
            assert!(done, "{line}: {said}");
        }
        self.until("t", state);
    }

    /// What the operation does: the state after it, or that it was refused.
    fn cell(&self, state: &str, operation: &str) -> String {
        self.bring(state);
        let (done, _) = self.run(&operation.replace("ID", "t"));
        if done && operation.starts_with("kill") {
            // It is sent, and takes effect afterwards.
            self.until("t", "stopped");
        }
        let after = self.status("t");
        match done {
            false if after == state => "refused".to_owned(),
            false => format!("refused, then {after}"),
            true if after == state => "nothing changes".to_owned(),
            true => after,
        }
    }

    /// The whole table: a row for each state, a column for each operation.
    fn table(&self) -> String {
        let mut table = String::from("| |");
        OPERATIONS.iter().for_each(|(name, _)| write!(table, " {name} |").unwrap());
        table += "\n|---|---|---|---|---|---|---|---|---|---|\n";
        for state in STATES {
            write!(table, "| **{state}** |").unwrap();
            for (_, operation) in OPERATIONS {
                write!(table, " {} |", self.cell(state, operation)).unwrap();
            }
            table += "\n";
        }
        assert!(self.run("delete --force t").0);
        table
    }
}

#[test]
fn every_operation_in_every_state_is_what_runc_makes_of_it() {
    let Some(bench) = Bench::new() else { return };
    let process =
        json!({"args": ["sleep", "600"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let root = bench.leftovers.runtime_dir().join("state");
    let vc = {
        let (program, guest, root) = (env!("CARGO_BIN_EXE_vc"), bench.guest.clone(), root.clone());
        let command = move || {
            let mut command = Command::new(program);
            command.env("VC_GUEST", &guest).arg("--root").arg(&root);
            command
        };
        Runtime { command: Box::new(command), bundle: bundle.dir.clone() }
    };
    let table = vc.table();
    if let Some(runc) = runc(&bench, &process) {
        assert_eq!(table, as_ours(&runc.table()), "on the left vc, on the right runc");
    }
    let document = include_str!("../../../../docs/RUNTIME.md");
    assert!(document.contains(&table), "docs/RUNTIME.md should have this table:\n{table}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    fs::remove_dir(root).unwrap();
    bench.leftovers.assert_none();
}

/// runc's table with the one cell of each line that vc has otherwise; docs/RUNTIME.md says why.
fn as_ours(table: &str) -> String {
    let created = table.lines().find(|line| line.starts_with("| **created**")).unwrap();
    // Columns: nothing, the state, and the operations.
    let mut cells: Vec<_> = created.split('|').map(str::trim).collect();
    let column = |name| 2 + OPERATIONS.iter().position(|(known, _)| *known == name).unwrap();
    assert_eq!((cells[column("exec")], cells[column("pause")]), ("nothing changes", "paused"));
    (cells[column("exec")], cells[column("pause")]) = ("refused", "refused");
    let ours = cells[1..cells.len() - 1].iter().fold("|".to_owned(), |line, cell| line + " " + cell + " |");
    table.replace(created, &ours)
}

/// runc, if it is installed and can run a container here.
fn runc(bench: &Bench, process: &Value) -> Option<Runtime> {
    let dir = bench.layers.path().join("runc");
    fs::create_dir(&dir).unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": bench.layers.path().join("busybox.tree")},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]},
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let root = dir.join("state");
    let command = move || {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&root);
        command
    };
    if command().arg("--version").output().is_err() {
        vc_tests::skip("runc is not installed, so vc is held against docs/RUNTIME.md only");
        return None;
    }
    let runc = Runtime { command: Box::new(command), bundle: dir };
    let (created, _) = runc.run("create --bundle BUNDLE probe");
    runc.run("delete --force probe");
    if !created {
        vc_tests::skip("runc cannot run containers here, so vc is held against docs/RUNTIME.md only");
        return None;
    }
    Some(runc)
}
