//! Layers to run a container from: what an image of four layers would come to.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;

/// One layer, as an EROFS image.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) image: PathBuf,
    /// Where a snapshotter would mount it.
    pub(crate) mount_point: PathBuf,
}

type Fill = fn(&Path) -> Result<()>;

/// From the lowest to the topmost: what it is, and how it is filled.
const LAYERS: [(&str, Fill); 4] = [
    ("busybox and its applets", fill_base),
    ("adds /srv/added, overrides /srv/message", fill_changes),
    ("removes /srv/doomed, by a whiteout", fill_whiteout),
    ("adds /srv/fourth", fill_fourth),
];

/// Makes the layers' images in `directory`, the lowest first, each in a directory of its own as snapshotters have them.
pub(crate) fn make(directory: &Path) -> Result<Vec<Layer>> {
    let make = |(number, (what, fill)): (usize, &(&str, Fill))| {
        let snapshot = directory.join("snapshots").join(number.to_string());
        let layer = Layer { image: snapshot.join("layer.erofs"), mount_point: snapshot.join("fs") };
        make_layer(&layer, *fill).with_context(|| format!("cannot make the layer that {what}"))?;
        println!("layer {number}: {what} ({} KiB)", fs::metadata(&layer.image)?.len() / 1024);
        Ok(layer)
    };
    (1..).zip(&LAYERS).map(make).collect()
}

/// Makes the lowest layer only, which is enough to run a program.
pub(crate) fn make_base(directory: &Path) -> Result<Layer> {
    let layer = Layer { image: directory.join("layer.erofs"), mount_point: directory.join("fs") };
    make_layer(&layer, fill_base).context("cannot make a layer with busybox")?;
    Ok(layer)
}

/// Makes `count` layers with a file of their own each, for the top of a stack.
pub(crate) fn make_small(directory: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let make = |number: usize| {
        let name = number.to_string();
        let image = directory.join(format!("small-{name}.erofs"));
        let layer = Layer { image: image.clone(), mount_point: directory.join("small") };
        let fill = |root: &Path| {
            fs::create_dir(root.join("srv"))?;
            Ok(fs::write(root.join("srv").join(&name), &name)?)
        };
        make_layer(&layer, fill).with_context(|| format!("cannot make layer {number}"))?;
        Ok(image)
    };
    (0..count).map(make).collect()
}

fn make_layer(layer: &Layer, fill: impl Fn(&Path) -> Result<()>) -> Result<()> {
    fs::create_dir_all(&layer.mount_point)?;
    let content = tempfile::tempdir()?;
    // It becomes the container's root, which all may enter.
    fs::set_permissions(content.path(), fs::Permissions::from_mode(0o755))?;
    fill(content.path())?;
    let mut command = Command::new("mkfs.erofs");
    command.args(["--quiet", "--all-root", "-T0", "-Enoinline_data"]);
    process::output(command.arg(&layer.image).arg(content.path()))?;
    Ok(())
}

fn fill_base(root: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    for (directory, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("srv", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
    ] {
        builder.mode(mode).create(root.join(directory))?;
    }
    let busybox = process::find("busybox").context("there is no busybox")?;
    let applets = process::text(Command::new(&busybox).arg("--list"))?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    // The list has busybox itself: that link would replace the program by a loop.
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("srv/message"), "from layer 1\n")?;
    fs::write(root.join("srv/doomed"), "from layer 1\n")?;
    ensure_static(&busybox)
}

fn fill_changes(root: &Path) -> Result<()> {
    fs::create_dir(root.join("srv"))?;
    fs::write(root.join("srv/added"), "from layer 2\n")?;
    fs::write(root.join("srv/message"), "from layer 2\n")?;
    Ok(())
}

/// overlayfs takes a character device 0:0 for "removed"; anyone may make that one (Linux 5.8 and later).
fn fill_whiteout(root: &Path) -> Result<()> {
    fs::create_dir(root.join("srv"))?;
    process::output(Command::new("mknod").arg(root.join("srv/doomed")).args(["c", "0", "0"]))?;
    Ok(())
}

fn fill_fourth(root: &Path) -> Result<()> {
    fs::create_dir(root.join("srv"))?;
    fs::write(root.join("srv/fourth"), "from layer 4\n")?;
    Ok(())
}

fn ensure_static(program: &Path) -> Result<()> {
    let is_static = vc_image::is_static(&fs::read(program)?)?;
    ensure!(is_static, "{} is not static; install busybox-static", program.display());
    Ok(())
}
