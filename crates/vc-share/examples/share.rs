//! Serves files and directories of this host by virtio-fs until it is interrupted: `share DIRECTORY SOURCE...`.
//!
//! Prints the socket for QEMU's `-chardev socket,id=fs,path=SOCKET -device vhost-user-fs-pci,chardev=fs,tag=shared`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::time::Duration;

use vc_share::{Bind, Server, ServerConfig, ServerKind, SharedDir};
use vc_types::{Deadline, HostPath};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: share DIRECTORY SOURCE... (DIRECTORY is made, and removed again)";
    let root = HostPath::new(std::path::absolute(arguments.next().ok_or(usage)?)?)?;
    let mut directory = SharedDir::create(&root)?;
    for (number, source) in arguments.enumerate() {
        let source = HostPath::new(std::fs::canonicalize(source)?)?;
        directory
            .bind(&Bind { read_only: true, ..Bind::new(number.to_string().parse()?, source.clone()) })?;
        println!("{source} is {number}, read-only");
    }
    let socket = HostPath::new(root.as_path().with_extension("sock"))?;
    let deadline = Deadline::after(Duration::from_secs(10));
    let server =
        Server::start(&ServerConfig::new(ServerKind::Virtiofsd), &directory.served(), &socket, deadline)
            .await?;
    println!("served at {}; it ends with the machine that connects", server.socket());
    println!("{}", server.exited().await);
    drop(server);
    directory.remove().map_err(|mut errors| errors.remove(0).into())
}
