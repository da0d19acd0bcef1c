//! `vc update`: other limits for a container.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::control::{act, word};
use super::protocol::{Ask, MOST};
use super::root::Root;
use crate::cli::Update;
use crate::failure::Failure;

/// Changes the limits that are given, and no other.
pub(crate) fn update(root: &Root, options: &Update) -> Result<(), Failure> {
    let json = match &options.resources {
        Some(file) => read(file)?,
        None => given(options),
    };
    if json.as_object().is_none_or(Map::is_empty) {
        return Err(Failure::message("no limit is given; see `vc update --help`"));
    }
    let resources: LinuxResources =
        serde_json::from_value(json).map_err(|error| Failure::step("understand the limits", error))?;
    act(&root.get(&options.id)?, Ask::Update { resources: Box::new(resources) }, |status| {
        let status = word(status);
        Failure::message(format!("container {}: cannot update a container that is {status}", options.id))
    })
}

fn read(file: &Path) -> Result<Value, Failure> {
    let step = || format!("read the limits from {}", file.display());
    let mut json = Vec::new();
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| Failure::step(step(), error))?)
    };
    input.take(MOST.into()).read_to_end(&mut json).map_err(|error| Failure::step(step(), error))?;
    serde_json::from_slice(&json).map_err(|error| Failure::step(step(), error))
}

/// The options as `linux.resources` of config.json.
fn given(options: &Update) -> Value {
    let some = |pairs: &[(&str, Option<Value>)]| {
        let given = pairs.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        let map: Map<_, _> = given.collect();
        (!map.is_empty()).then_some(Value::Object(map))
    };
    let memory = some(&[
        ("limit", options.memory.map(|value| json!(value))),
        ("reservation", options.memory_reservation.map(|value| json!(value))),
        ("swap", options.memory_swap.map(|value| json!(value))),
    ]);
    let cpu = some(&[
        ("shares", options.cpu_shares.map(|value| json!(value))),
        ("quota", options.cpu_quota.map(|value| json!(value))),
        ("period", options.cpu_period.map(|value| json!(value))),
    ]);
    let pids = some(&[("limit", options.pids_limit.map(|value| json!(value)))]);
    some(&[("memory", memory), ("cpu", cpu), ("pids", pids)]).unwrap_or_default()
}
