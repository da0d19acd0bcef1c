//! `docs/OCI.md` held to what containers see.

use crate::guest::{Guest, deadline, merge, refusal};
use crate::rows::{self, Check, ID, Row};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use ttrpc::Code;
use vc_agent_protocol::agent;
use vc_agent_protocol::spec::fields_lost;

const TABLE: &str = include_str!("../../../../docs/OCI.md");

/// The fields of the table's rows, with what the table says of them.
fn table() -> Vec<(&'static str, &'static str)> {
    let cells = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end().trim_end_matches('`'), cells.next()?.trim()))
    };
    TABLE.lines().filter_map(cells).collect()
}

#[test]
fn the_table_and_its_tests_have_the_same_rows() {
    let state = |row: &Row| match &row.check {
        Check::Seen { .. } | Check::Elsewhere(_) => ["supported", "mapped"].as_slice(),
        Check::Refused { .. } => &["refused"],
        Check::NotCarried { .. } => &["not carried"],
    };
    let table = table();
    let rows = rows::all((0, 0));
    for row in &rows {
        let told = table.iter().find(|(field, _)| *field == row.field);
        let told = told.unwrap_or_else(|| panic!("docs/OCI.md has no row {:?}", row.field)).1;
        assert!(state(row).contains(&told), "docs/OCI.md says that {:?} is {told}", row.field);
    }
    for (field, _) in &table {
        assert!(rows.iter().any(|row| row.field == *field), "no test for the row {field:?}");
    }
    assert_eq!(table.len(), rows.len(), "a row is there twice");
    assert!(rows.len() > 100, "the table is not read as it is written");
    let tests = [include_str!("lifecycle.rs"), include_str!("oci.rs")].concat();
    for row in rows {
        if let Check::Elsewhere(name) = row.check {
            assert!(tests.contains(&format!("fn {name}(")), "there is no test {name:?}");
        }
    }
}

/// The host can tell, so that it never drops one of these silently.
#[test]
fn fields_without_a_place_in_the_protocol_are_told_as_lost() {
    for row in rows::all((0, 0)) {
        let Check::NotCarried { pointer, value } = row.check else { continue };
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "mounts": [{"destination": "/mnt"}],
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "linux": {"resources": {"memory": {}, "cpu": {}}},
        });
        if pointer.contains("seccomp") {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = value;
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let lost = fields_lost(&spec).unwrap();
        let name = pointer[1..].replace("/0/", "[0].").replace('/', ".");
        assert!(lost.iter().any(|field| field.starts_with(&name)), "{}: {lost:?}", row.field);
    }
}

#[tokio::test]
async fn what_a_container_sees_is_what_its_specification_says() {
    let Some(guest) = Guest::boot().await else { return };
    let mut wrong = Vec::new();
    for row in rows::all(disk_numbers(&guest).await) {
        match &row.check {
            Check::Seen { patch, script, want } => {
                let mut whole = patch.clone();
                merge(&mut whole, &json!({"process": {"args": ["sh", "-c", script]}}));
                wrong.extend(compare(row.field, run(&guest, &whole).await, want));
            }
            Check::Refused { patch, why } => {
                let answer = guest.calls.create_container(deadline(), &guest.request(ID, patch)).await;
                if answer.is_ok() {
                    guest.remove(ID).await;
                    wrong.push(format!("{}: not refused", row.field));
                    continue;
                }
                let (_, message) = refusal(answer);
                if !message.contains(why) {
                    wrong.push(format!("{}: refused with {message:?}", row.field));
                }
            }
            Check::NotCarried { .. } | Check::Elsewhere(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    guest.power_off().await;
}

/// The same for a process that joins: its own fields, and what it shares with the container.
#[tokio::test]
async fn what_an_exec_sees_is_what_its_process_says() {
    let Some(guest) = Guest::boot().await else { return };
    let mut wrong = Vec::new();
    let is_first = |row: &Row| row.field == "linux.namespaces: pid";
    for row in rows::all(disk_numbers(&guest).await) {
        let Check::Seen { patch, script, want } = &row.check else { continue };
        // An exec is never the first process.
        if is_first(&row) {
            continue;
        }
        let mut container = patch.clone();
        merge(&mut container, &json!({"process": {"args": ["sleep", "600"]}}));
        let mut process = patch.get("process").cloned().unwrap_or(json!({}));
        merge(&mut process, &json!({"args": ["sh", "-c", script]}));
        if let Err(error) = try_start(&guest, &container).await {
            wrong.push(format!("{}: {error}", row.field));
            continue;
        }
        let result = match guest.exec(ID, "exec", &process).await {
            Ok(_) => Ok(guest.outcome(ID, "exec").await.stdout),
            Err(error) => Err(error.to_string()),
        };
        wrong.extend(compare(row.field, result, want));
        guest.remove(ID).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    guest.power_off().await;
}

fn compare(field: &str, result: Result<String, String>, want: &str) -> Option<String> {
    match result {
        Ok(stdout) if stdout == want => None,
        Ok(stdout) => Some(format!("{field}: {stdout:?} instead of {want:?}")),
        Err(error) => Some(format!("{field}: {error}")),
    }
}

async fn try_start(guest: &Guest, patch: &Value) -> Result<(), String> {
    let created = guest.calls.create_container(deadline(), &guest.request(ID, patch)).await;
    created.map_err(|error| error.to_string())?;
    let start = agent::StartContainerRequest { container_id: ID.into(), ..Default::default() };
    guest.calls.start_container(deadline(), &start).await.map(drop).map_err(|error| error.to_string())
}

async fn run(guest: &Guest, patch: &Value) -> Result<String, String> {
    try_start(guest, patch).await?;
    let outcome = guest.outcome(ID, ID).await;
    guest.remove(ID).await;
    if outcome.stdout.is_empty() { Err(format!("{outcome:?}")) } else { Ok(outcome.stdout) }
}

/// The numbers of the only disk.
async fn disk_numbers(guest: &Guest) -> (u64, u64) {
    let numbers =
        guest.run("numbers", &json!({"process": {"args": ["cat", "/sys/block/vda/dev"]}})).await.stdout;
    let (major, minor) = numbers.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

#[tokio::test]
async fn a_limit_without_its_controller_is_refused() {
    let Some(guest) = Guest::boot().await else { return };
    let (major, minor) = disk_numbers(&guest).await;
    let limits = [
        json!({"blockIO": {"weight": 500}}),
        json!({"blockIO": {"weightDevice": [{"major": major, "minor": minor, "weight": 500}]}}),
    ];
    for limit in limits {
        // Some kernels have weights, most have not: then it is an error, and never another container.
        let script = json!(["sh", "-c", "cat /sys/fs/cgroup/io.weight"]);
        let patch = json!({"process": {"args": script}, "linux": {"resources": limit}});
        let answer = guest.calls.create_container(deadline(), &guest.request(ID, &patch)).await;
        if answer.is_ok() {
            let start = agent::StartContainerRequest { container_id: ID.into(), ..Default::default() };
            guest.calls.start_container(deadline(), &start).await.unwrap();
            let weights = guest.outcome(ID, ID).await.stdout;
            assert!(weights.contains("4950"), "{limit}: {weights}");
            guest.remove(ID).await;
        } else {
            let (code, message) = refusal(answer);
            assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
            assert!(message.contains("io.weight"), "{message}");
        }
    }
    // Nothing is left of those that were refused.
    assert_eq!(guest.run(ID, &json!({})).await.status, 0);
    guest.power_off().await;
}
