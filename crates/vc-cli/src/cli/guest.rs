//! The options of `vc guest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    /// Build a guest image: a kernel, and an initrd with its modules and the agent.
    ///
    /// The kernel is Debian's: apt downloads its package to ~/.cache/vc ($XDG_CACHE_HOME/vc), where it stays; it is
    /// unpacked, never installed, and none of this needs root. An image that fails leaves the one that is there.
    Build(GuestBuild),
}

#[derive(Args, Debug)]
pub(crate) struct GuestBuild {
    /// Kernel (vmlinux or bzImage), instead of Debian's
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// Modules of that kernel, as in /lib/modules/RELEASE; not needed if it has everything built in
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub(crate) modules: Option<PathBuf>,

    /// The agent: a static vc-guest, or any static program that is to be /init
    /// [default: vc-guest beside vc, or in /usr/local/lib/vc or /usr/lib/vc]
    #[arg(long, visible_alias = "init", value_name = "FILE")]
    pub(crate) agent: Option<PathBuf>,

    /// Directory of the image [default: where vc looks for it; see `vc config`]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Compress the initrd: it is half as large, and takes longer to start
    #[arg(long)]
    pub(crate) compress: bool,

    /// Take Debian's newest kernel, instead of the one that was downloaded before
    #[arg(long, conflicts_with = "kernel")]
    pub(crate) update: bool,
}
