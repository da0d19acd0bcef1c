//! `vc state` and `vc list`: what is written down about containers, and whether their owners live.

use std::io::Write;

use rustix::process::getuid;
use serde::Serialize;

use super::record::{Record, Status};
use super::root::{ContainerDir, Root};
use crate::cli::ListFormat;
use crate::failure::Failure;
use vc_types::ContainerId;

/// A container as runc prints it; the names are those of the OCI runtime specification (runtime.md, "State"), and
/// runc's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// 0 where there is no process, as runc has it.
    pid: u32,
    status: Status,
    bundle: &'a std::path::Path,
    rootfs: &'a std::path::Path,
    created: &'a str,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    /// Why a container is stopped whose process nobody saw end.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

/// What a container is now, with what its owner's death made of it.
#[derive(Debug)]
pub(crate) struct Now {
    pub(crate) record: Record,
    /// Whether somebody owns it.
    pub(crate) owned: bool,
}

const DIED: &str = "its owner died; `vc delete` removes what is left";

impl Now {
    /// Reads it, and asks nobody.
    pub(crate) fn of(dir: &ContainerDir) -> Result<Self, Failure> {
        let locked = dir.try_lock();
        let owned = locked
            .map_err(|error| Failure::step(format!("look at {}", dir.path().display()), error))?
            .is_none();
        Ok(Self { record: Record::read(dir)?, owned })
    }

    /// The status that follows.
    pub(crate) fn status(&self) -> Status {
        if self.owned { self.record.status } else { Status::Stopped }
    }

    fn died(&self) -> bool {
        !self.owned && self.record.status != Status::Stopped
    }

    fn view(&self) -> View<'_> {
        let pid = self.record.pid.filter(|_| self.status() != Status::Stopped);
        View {
            pid: pid.unwrap_or(0),
            problem: self.died().then_some(DIED),
            ..view(&self.record, self.status())
        }
    }
}

fn view(record: &Record, status: Status) -> View<'_> {
    View {
        oci_version: &record.oci_version,
        id: record.id.as_str(),
        pid: record.pid.unwrap_or(0),
        status,
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: &record.annotations,
        exit_code: record.exit_code,
        problem: None,
    }
}

/// The state that hooks get.
pub(crate) fn state_json(record: &Record, status: Status) -> String {
    serde_json::to_string(&view(record, status)).expect("a state has nothing that JSON has not")
}

/// Prints a container's state.
pub(crate) fn state(root: &Root, id: &ContainerId) -> Result<(), Failure> {
    let now = Now::of(&root.get(id)?)?;
    let json = serde_json::to_string_pretty(&now.view()).expect("a state has nothing that JSON has not");
    print(&format!("{json}\n"))
}

/// Prints every container.
pub(crate) fn list(root: &Root, format: ListFormat, quiet: bool) -> Result<(), Failure> {
    let mut all = Vec::new();
    for id in root.ids()? {
        let Some(dir) = root.find(&id) else { continue };
        match Now::of(&dir) {
            Ok(now) => all.push(now),
            // One that was deleted meanwhile, or cannot be read, does not hide the others.
            Err(failure) => tracing::warn!("{}", failure.for_engines()),
        }
    }
    if quiet {
        return print(&all.iter().map(|now| format!("{}\n", now.record.id)).collect::<String>());
    }
    let views: Vec<_> = all.iter().map(Now::view).collect();
    match format {
        ListFormat::Json => {
            let json = serde_json::to_string(&views).expect("a state has nothing that JSON has not");
            print(&format!("{json}\n"))
        }
        ListFormat::Table => print(&table(&views)),
    }
}

/// As runc prints it, but for the last column: the owner of a directory is always the caller.
fn table(views: &[View<'_>]) -> String {
    let user = getuid().as_raw().to_string();
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for view in views {
        let status = serde_json::to_value(view.status).expect("a word");
        let mut status = status.as_str().unwrap_or_default().to_owned();
        if view.problem.is_some() {
            status += " (owner died)";
        }
        let bundle = view.bundle.display().to_string();
        let row =
            [view.id.to_owned(), view.pid.to_string(), status, bundle, view.created.to_owned(), user.clone()];
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure::step("write to standard output", error))
}
