//! `byte_source PORT MIB`: sends so many MiB of zeros to a vsock port of the host, as fast as it can; with `-` for the
//! port, to its standard output. The same bytes by either way, for `cargo xtask bench stdio`.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, mib] = &arguments[..] else { return Err("usage: byte_source PORT|- MIB".into()) };
    let mib: u32 = mib.parse()?;
    let zeros = vec![0; 1 << 20];
    if port == "-" {
        let mut stdout = std::io::stdout().lock();
        for _ in 0..mib {
            std::io::Write::write_all(&mut stdout, &zeros)?;
        }
        return Ok(());
    }
    let mut stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port.parse()?)).await?;
    for _ in 0..mib {
        stream.write_all(&zeros).await?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The host has all of it once it hangs up.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
