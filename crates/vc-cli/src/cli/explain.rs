//! The options of `vc explain`.

use std::path::PathBuf;

use clap::Args;

use super::Rootfs;

#[derive(Args, Debug)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) rootfs: Rootfs,

    /// Print the plan in JSON instead of as a tree
    #[arg(long)]
    pub(crate) json: bool,

    /// Plan for a machine that shares no file system with the host
    #[arg(long)]
    pub(crate) no_shared_fs: bool,

    /// Where CSI drivers leave volumes to the runtime
    #[arg(long, value_name = "DIR", default_value = "/run/kata-containers/shared/direct-volumes")]
    pub(crate) direct_volumes: PathBuf,
}
