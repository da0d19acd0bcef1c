//! Which tests run, as cargo-nextest lists them, and with which variables: all that a host needs to be told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::report::title;
use super::suite;
use crate::process;
use crate::workspace::Workspace;

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// Crate and test program, such as `vc-qemu::vm`.
    pub(super) suite: String,
    /// Its name in the program.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Where cargo runs it: the directory of its crate.
    pub(super) directory: PathBuf,
}

/// Tests, and what is set for them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) tests: Vec<Test>,
    pub(super) variables: BTreeMap<String, String>,
    /// How many tests of each program are left out by rule.
    pub(super) left_out: BTreeMap<String, usize>,
    /// Whether its runner tells what the host can do.
    pub(super) tells_the_host: bool,
}

impl Plan {
    /// Builds the tests and lists the whole suite.
    pub(super) fn whole(workspace: &Workspace) -> Result<Self> {
        let mut plan = Self { tests: list(workspace, suite::ALL)?, ..Self::default() };
        plan.set("VC_TEST_VM", "required");
        plan.set("VC_GUEST", &workspace.guest_image().to_string_lossy());
        plan.set("PATH", &workspace.path().to_string_lossy());
        Ok(plan)
    }

    /// Keeps the tests whose title, such as `vc-qemu::vm boots`, has `part`.
    pub(super) fn keep(&mut self, part: &str) -> Result<()> {
        self.tests.retain(|test| title(test).contains(part));
        ensure!(!self.tests.is_empty(), "no test has {part:?} in its name");
        Ok(())
    }

    /// Keeps what a nested host runs by itself, and counts the others.
    pub(super) fn keep_for_nested(&mut self, workspace: &Workspace) -> Result<()> {
        let kept = list(workspace, &suite::nested())?;
        for test in self.tests.iter().filter(|test| !kept.contains(test)) {
            *self.left_out.entry(test.suite.clone()).or_default() += 1;
        }
        self.tests = kept;
        Ok(())
    }

    /// Sets a variable for all tests.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Writes the plan for a runner on another host with the same files, which tells what that host can do or does not.
    pub(super) fn write(&self, path: &Path, tells_the_host: bool) -> Result<()> {
        let test = |test: &Test| json!({ "suite": test.suite, "name": test.name, "program": test.program, "directory": test.directory });
        let tests: Vec<Value> = self.tests.iter().map(test).collect();
        let text = json!({ "tests": tests, "variables": self.variables, "tells_the_host": tells_the_host });
        let text = text.to_string();
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Plan::write`] wrote.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = serde_json::from_slice(&text).context("the plan is no JSON")?;
        parse(&value).context("the plan has another form")
    }
}

/// The tests of a filterset, which are built for that, in the order in which they run.
fn list(workspace: &Workspace, filterset: &str) -> Result<Vec<Test>> {
    let mut command = workspace.cargo();
    command.args(["nextest", "list", "--locked", "--workspace", "--all-features"]);
    command.args(suite::PROGRAMS.iter().flat_map(|program| ["--test", program]));
    command.args(["--message-format", "json", "-E", filterset]);
    let list = process::output(&mut command).context("cannot list the tests")?;
    let list = serde_json::from_slice(&list).context("cargo-nextest wrote no JSON")?;
    let mut tests = tests(&list).context("cargo-nextest's list has another form")?;
    tests.sort_by(|a, b| (&a.suite, &a.name).cmp(&(&b.suite, &b.name)));
    Ok(tests)
}

fn parse(value: &Value) -> Option<Plan> {
    let text = |value: &Value| Some(value.as_str()?.to_owned());
    let test = |value: &Value| {
        let (suite, name) = (text(&value["suite"])?, text(&value["name"])?);
        let (program, directory) = (text(&value["program"])?.into(), text(&value["directory"])?.into());
        Some(Test { suite, name, program, directory })
    };
    let tests = value["tests"].as_array()?.iter().map(test).collect::<Option<_>>()?;
    let variables = value["variables"].as_object()?.iter();
    let variables =
        variables.map(|(name, value)| Some((name.clone(), text(value)?))).collect::<Option<_>>()?;
    Some(Plan { tests, variables, tells_the_host: value["tells_the_host"].as_bool()?, ..Plan::default() })
}

/// The selected tests in the output of `cargo nextest list --message-format json`.
fn tests(list: &Value) -> Option<Vec<Test>> {
    let mut tests = Vec::new();
    for (suite, value) in list["rust-suites"].as_object()? {
        let (program, directory) = (value["binary-path"].as_str()?, value["cwd"].as_str()?);
        // A program that no test can be selected from is not asked for its tests.
        for (name, test) in value["testcases"].as_object().into_iter().flatten() {
            if test["filter-match"]["status"] == "matches" {
                let (program, directory) = (program.into(), directory.into());
                tests.push(Test { suite: suite.clone(), name: name.clone(), program, directory });
            }
        }
    }
    Some(tests)
}

#[cfg(test)]
mod tests_of_the_plan {
    use super::*;

    /// Cut from the output of cargo-nextest 0.9.148.
    fn list() -> Value {
        json!({ "rust-suites": {
            "vc-qemu::vm": {
                "binary-path": "/t/debug/deps/vm-1", "cwd": "/s/crates/vc-qemu", "status": "listed",
                "testcases": {
                    "boots": { "ignored": false, "filter-match": { "status": "matches" } },
                    "other": { "ignored": false, "filter-match": { "status": "mismatch", "reason": "expression" } }
                }
            },
            "vc-types": { "binary-path": "/t/debug/deps/vc_types-1", "cwd": "/s", "status": "skipped", "testcases": {} }
        } })
    }

    #[test]
    fn selected_tests_are_read_from_nextests_list() {
        let tests = tests(&list()).unwrap();
        let names: Vec<_> = tests.iter().map(|test| (test.suite.as_str(), test.name.as_str())).collect();
        assert_eq!(names, [("vc-qemu::vm", "boots")]);
        assert!(super::tests(&json!({})).is_none());
    }

    #[test]
    fn a_plan_survives_its_file() {
        let mut plan = Plan { tests: tests(&list()).unwrap(), ..Plan::default() };
        plan.set("VC_ACCEL", "kvm");
        let file = tempfile::NamedTempFile::new().unwrap();
        plan.write(file.path(), true).unwrap();
        let read = Plan::read(file.path()).unwrap();
        assert_eq!((read.tests, read.variables), (plan.tests, plan.variables));
        assert!(read.tells_the_host);
    }
}
