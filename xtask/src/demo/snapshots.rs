//! Mounts layers as containerd's EROFS snapshotter does: `snapshots/N/layer.erofs` at `snapshots/N/fs`, and an overlay
//! over them that it hands to the runtime without mounting it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount as mount_2, unmount};
use serde_json::{Value, json};

use super::undo::Undo;
use crate::layers::Layer;
use crate::process;

/// Mounts the layers, the lowest first: the topmost from its file where the kernel can (Linux 6.12 and later), as
/// containerd does there, and the others through loop devices, as it does elsewhere.
///
/// Returns their mount points, the topmost first, as overlayfs wants them.
pub(super) fn mount(
    layers: &[Layer],
    undo: &mut Undo,
    check: impl Fn() -> Result<()>,
) -> Result<Vec<String>> {
    let mut mounted = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        check()?;
        let is_topmost = index + 1 == layers.len();
        let how = if is_topmost && mount_file(layer)? { "from its file" } else { mount_loop(layer)? };
        let point = layer.mount_point.clone();
        undo.push(format!("unmounted layer {}", index + 1), move || {
            unmount(&point, UnmountFlags::empty())
                .with_context(|| format!("cannot unmount {}", point.display()))
        });
        println!("layer {} {how}", index + 1);
        mounted.insert(0, layer.mount_point.display().to_string());
    }
    Ok(mounted)
}

/// The mount that the snapshotter hands to the runtime, with an upper directory of the container's own.
pub(super) fn overlay(directory: &Path, lower: &[String]) -> Result<Value> {
    let active = directory.join("snapshots/active");
    let (upper, work) = (active.join("fs"), active.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    Ok(json!({
        "type": "overlay",
        "source": "overlay",
        "options": [
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.join(":")),
        ],
    }))
}

/// Mounts without a loop device; returns whether this kernel can do that. By the system call, since mount(8) of
/// util-linux 2.38 always puts a loop device in between.
fn mount_file(layer: &Layer) -> Result<bool> {
    match mount_2(&layer.image, &layer.mount_point, "erofs", MountFlags::RDONLY, None) {
        Ok(()) => Ok(true),
        Err(Errno::NOTBLK | Errno::INVAL | Errno::NODEV) => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("cannot mount {} from its file", layer.image.display()))
        }
    }
}

fn mount_loop(layer: &Layer) -> Result<&'static str> {
    let mut command = Command::new("mount");
    command.args(["-t", "erofs", "-o", "ro,loop"]);
    process::output(command.arg(&layer.image).arg(&layer.mount_point))?;
    Ok("through a loop device")
}
