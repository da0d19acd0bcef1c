//! Boots a kernel and an initial RAM disk, waits until the machine ends, and tells how it did.
//!
//! `boot KERNEL INITRD [SECONDS]`: with SECONDS the machine is ended after that time.
#![expect(clippy::print_stdout, reason = "an example that is run by hand")]

use std::error::Error;
use std::time::Duration;

use vc_hypervisor::{Hypervisor, Machine, MachineSpec};
use vc_qemu::{Qemu, QemuConfig};
use vc_types::{Deadline, HostPath};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initrd, rest @ ..] = &args[..] else {
        return Err("usage: boot KERNEL INITRD [SECONDS]".into());
    };
    let runtime_dir = tempfile::tempdir()?;
    let file = |path: &String| HostPath::new(std::path::absolute(path)?).map_err(Box::<dyn Error>::from);
    let dir = HostPath::new(runtime_dir.path())?;
    let spec = MachineSpec::new("boot".parse()?, file(kernel)?, file(initrd)?, dir);
    let qemu = Qemu::new(QemuConfig::default());
    let machine = qemu.launch(&spec, Deadline::after(Duration::from_secs(30))).await?;
    println!("launched; the agent will answer at {}", machine.agent_address());
    if let [seconds] = rest {
        let time = Duration::from_secs(seconds.parse()?);
        if tokio::time::timeout(time, machine.exited()).await.is_err() {
            println!("ending it after {seconds} s");
        }
        machine.stop(Deadline::after(Duration::from_secs(10))).await?;
    }
    println!("{}", machine.exited().await);
    Ok(())
}
