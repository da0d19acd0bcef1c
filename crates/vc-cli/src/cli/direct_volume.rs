//! The options of `vc direct-volume`, as `kata-runtime direct-volume` has them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum DirectVolume {
    /// Leave a volume to the runtime
    Add {
        #[command(flatten)]
        volume: Volume,

        /// What it is: JSON with volume-type (block), device, fstype, metadata and options
        #[arg(long, value_name = "JSON")]
        mount_info: String,
    },
    /// Take a volume back from the runtime
    Remove {
        #[command(flatten)]
        volume: Volume,
    },
    /// Print how full a volume is that a container uses, in JSON
    Stats {
        #[command(flatten)]
        volume: Volume,
    },
    /// Have the file system of a volume grow that a container uses, once its disk has grown
    Resize {
        #[command(flatten)]
        volume: Volume,

        /// How large it is to be
        #[arg(long, value_name = "BYTES")]
        size: u64,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Volume {
    /// Where the container's mount has the volume on the host
    #[arg(long, value_name = "PATH")]
    pub(crate) volume_path: PathBuf,
}
