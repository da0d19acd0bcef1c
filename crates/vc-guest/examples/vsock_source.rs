//! `vsock_source PORT MIB`: sends so many MiB of zeros to a vsock port of the host, as fast as it can. What a link gives
//! without an agent, for `cargo xtask bench stdio`.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().ok_or("usage: vsock_source PORT MIB");
    let (port, mib) = (number()?.parse()?, number()?.parse::<u32>()?);
    let mut stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port)).await?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..mib {
        stream.write_all(&zeros).await?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The host has all of it once it hangs up.
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
