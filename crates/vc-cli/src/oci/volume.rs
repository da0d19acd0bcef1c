//! `vc direct-volume`: what a CSI driver says of a volume that it leaves to the runtime, and asks of whoever has it.

use vc_storage::{DirectVolumes, InvalidDirectVolume};
use vc_types::{ContainerId, HostPath};

use super::client::ask;
use super::control::accept;
use super::protocol::{Ask, Reply};
use super::root::Root;
use super::state::print;
use crate::cli::{DirectVolume, Volume};
use crate::failure::Failure;

pub(crate) fn direct_volume(root: &Root, what: &DirectVolume) -> Result<(), Failure> {
    let volumes = DirectVolumes::default();
    match what {
        DirectVolume::Add { volume, mount_info } => {
            let path = path(volume)?;
            volumes.add(&path, mount_info.as_bytes()).map_err(failed("add", &path))
        }
        DirectVolume::Remove { volume } => {
            let path = path(volume)?;
            volumes.remove(&path).map_err(failed("remove", &path))
        }
        DirectVolume::Stats { volume } => {
            let volume = path(volume)?;
            match ask_user(root, &volumes, &volume, Ask::VolumeStats { volume: volume.clone() })? {
                Reply::Volume(stats) => print(&format!("{stats}\n")),
                other => Err(Failure::message(format!("the owner of the container answered {other:?}"))),
            }
        }
        DirectVolume::Resize { volume, size } => {
            let volume = path(volume)?;
            let resize = Ask::ResizeVolume { volume: volume.clone(), bytes: *size };
            ask_user(root, &volumes, &volume, resize).map(drop)
        }
    }
}

/// Asks the owner of the sandbox that uses the volume.
fn ask_user(root: &Root, volumes: &DirectVolumes, volume: &HostPath, what: Ask) -> Result<Reply, Failure> {
    let sandbox = volumes.sandbox(volume).map_err(failed("find", volume))?;
    let sandbox =
        sandbox.ok_or_else(|| Failure::message(format!("no container uses the volume {volume}")))?;
    // A sandbox is called like the container that it was made for.
    let id: ContainerId = sandbox.as_str().parse().expect("both kinds of id have the same rules");
    let asked = ask(&root.get(&id)?, what);
    match asked.map_err(|error| Failure::step("talk to the owner of the container", error))? {
        Some(reply) => accept(reply),
        None => Err(Failure::message(format!("container {id}, which uses the volume {volume}, has stopped"))),
    }
}

fn path(volume: &Volume) -> Result<HostPath, Failure> {
    let path = &volume.volume_path;
    HostPath::new(path).map_err(|error| Failure::step(format!("use the path {}", path.display()), error))
}

fn failed(step: &'static str, volume: &HostPath) -> impl FnOnce(InvalidDirectVolume) -> Failure {
    move |error| Failure::step(format!("{step} the volume {volume}"), error)
}
