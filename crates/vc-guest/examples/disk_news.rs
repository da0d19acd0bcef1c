//! An `/init` that does nothing but tell the console which disks are there: `+vda` when its node has come, `-vda` when it
//! has gone. What a plug costs without an agent, for `cargo xtask bench plug`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use vc_guest::{DeviceEvents, ModuleLoader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (fs_type, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let mounted = mount(Some(fs_type), target, Some(fs_type), MsFlags::empty(), None::<&str>);
        // The kernel may have mounted /dev itself.
        mounted.or_else(|error| if target == "/dev" { Ok(()) } else { Err(error) })?;
    }
    let modules = ModuleLoader::open("/lib/modules");
    for name in modules.boot_list() {
        modules.load(&name, "")?;
    }
    let mut console = File::options().write(true).open("/dev/console")?;
    let mut events = DeviceEvents::listen()?;
    console.write_all(b"watching\n")?;
    let mut known = BTreeSet::new();
    loop {
        let now = disks()?;
        for name in now.difference(&known) {
            writeln!(console, "+{name}")?;
        }
        for name in known.difference(&now) {
            writeln!(console, "-{name}")?;
        }
        known = now;
        events.changed().await;
    }
}

/// The disks that have a node.
fn disks() -> std::io::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir("/sys/block")?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| Path::new("/dev").join(name).exists()).collect())
}
