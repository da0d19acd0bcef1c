//! Prints what backs each argument: `backing [--json] PATH...`

use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use vc_mountinfo::erofs::{self, LayerImage, Via};
use vc_mountinfo::{Fields, Lookup, LoopFile, Mount, Symlinks};

fn main() -> ExitCode {
    let (flags, paths): (Vec<_>, Vec<_>) = std::env::args_os().skip(1).partition(|arg| arg == "--json");
    // A path of that form can be written as `./--path`.
    if paths.is_empty() || paths.iter().any(|path| path.as_bytes().starts_with(b"--")) {
        let _ = writeln!(io::stderr(), "usage: backing [--json] PATH...");
        return ExitCode::from(2);
    }
    let mut lookup = Lookup::new().symlinks(Symlinks::Follow).fields(Fields::ALL);
    let mut code = ExitCode::SUCCESS;
    let mut answers = Vec::new();
    for path in paths {
        answers.push(describe(&mut lookup, Path::new(&path)).unwrap_or_else(|error| {
            code = ExitCode::FAILURE;
            json!({ "path": text(&path), "error": chain(&*error) })
        }));
    }
    let printed = if flags.is_empty() {
        answers.iter().map(|answer| print(answer, 0)).collect::<String>()
    } else {
        format!("{:#}\n", Value::Array(answers))
    };
    match io::stdout().write_all(printed.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn describe(lookup: &mut Lookup, path: &Path) -> Result<Value, Box<dyn Error>> {
    let mount = lookup.covering(path)?.into_owned();
    let way = lookup.way_taken().map(|way| format!("{way:?}"));
    let mut answer = json!({
        "path": text(path),
        "mount_point": mount.mount_point.as_deref().map(text),
        "mount_id": mount.id,
        "unique_mount_id": mount.unique_id,
        "type": text(&mount.fs_type),
        "source": text(&mount.source),
        "device": mount.device.to_string(),
        "root": mount.root.as_deref().map(text),
        "read_only": mount.read_only,
        "found_by": way,
    });
    let behind = behind(&mount).unwrap_or_else(|error| json!({ "error": chain(&*error) }));
    if let (Value::Object(answer), Value::Object(behind)) = (&mut answer, behind) {
        answer.extend(behind);
    }
    Ok(answer)
}

/// What stands behind a mount: layers, an image, a loop device's file, or nothing more than its source.
fn behind(mount: &Mount<'_>) -> Result<Value, Box<dyn Error>> {
    let at = mount.mount_point.as_deref().unwrap_or(Path::new("/"));
    let fs_type = mount.fs_type.to_str();
    if fs_type == Some("overlay") {
        let layers = erofs::overlay_layers(at, None)?;
        return Ok(json!({ "layers": layers.iter().map(layer).collect::<Vec<_>>() }));
    }
    if fs_type == Some("erofs") {
        return Ok(layer(&erofs::layer_image(at)?));
    }
    // The number alone does not tell a loop device's partition; the library asks sysfs.
    match LoopFile::behind(mount.device) {
        Ok(file) => Ok(loop_file(&file)),
        Err(vc_mountinfo::LoopError::NotLoop { .. }) => Ok(json!({})),
        Err(error) => Err(error.into()),
    }
}

fn layer(layer: &LayerImage) -> Value {
    let mut answer = json!({
        "directory": text(&layer.directory),
        "file": text(layer.image.path()),
        "length": layer.image.length(),
        "uuid": format!("{:032x}", u128::from_be_bytes(layer.image.superblock().uuid)),
        "via": "file",
    });
    if let (Via::Loop(file), Value::Object(answer)) = (&layer.via, &mut answer) {
        answer.insert("via".into(), format!("/dev/loop{}", file.number).into());
    }
    answer
}

fn loop_file(file: &LoopFile) -> Value {
    json!({
        "file": text(&file.path),
        "via": format!("/dev/loop{}", file.number),
        "offset": file.offset,
        "size_limit": file.size_limit,
        "disk_sequence": file.disk_sequence,
    })
}

/// A name as text, or as an array of bytes when it is not UTF-8.
fn text(name: impl AsRef<OsStr>) -> Value {
    let name = name.as_ref();
    name.to_str().map_or_else(|| json!(name.as_bytes()), Value::from)
}

/// An error with all its sources.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Lines of `name: value`, what is nested further in.
fn print(answer: &Value, depth: usize) -> String {
    let Value::Object(fields) = answer else { return format!("{:depth$}{answer}\n", "") };
    let line = |(name, value): (&String, &Value)| match value {
        Value::Null => String::new(),
        Value::Array(values) if values.iter().any(Value::is_object) => {
            let nested = values.iter().map(|value| print(value, depth + 4)).collect::<String>();
            format!("{:depth$}{name}:\n{nested}", "")
        }
        Value::String(value) => format!("{:depth$}{name}: {value}\n", ""),
        value => format!("{:depth$}{name}: {value}\n", ""),
    };
    // What was asked about comes first, the rest by name.
    let (path, rest): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| *name == "path");
    path.into_iter().chain(rest).map(line).collect::<String>() + "\n"
}
