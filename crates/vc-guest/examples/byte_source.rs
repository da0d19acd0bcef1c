//! `byte_source PORT MIB`: sends so many MiB to a vsock port of the host, as fast as it can; with `-` for the port, to its
//! standard output. The same bytes by either way, for `cargo xtask bench stdio`.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, mib] = &arguments[..] else { return Err("usage: byte_source PORT|- MIB".into()) };
    let mib: u32 = mib.parse()?;
    // Not zeros: the kernel has one page for all of those, and so would measure copies from its cache.
    let bytes = vec![b'x'; 1 << 20];
    if port == "-" {
        // Not by what looks for the ends of lines in all of it.
        let mut stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        for _ in 0..mib {
            Write::write_all(&mut stdout, &bytes)?;
        }
        return Ok(());
    }
    let mut stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port.parse()?)).await?;
    for _ in 0..mib {
        AsyncWriteExt::write_all(&mut stream, &bytes).await?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The host has all of it once it hangs up.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
