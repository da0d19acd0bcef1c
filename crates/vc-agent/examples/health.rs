//! `health <address> [seconds]`: prints whether an agent answers, and after how long.
//!
//! The address is `vsock:CID:PORT`, `hybrid:SOCKET:PORT` or `unix:SOCKET`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example that is run by hand")]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vc_agent::{Connect, Connector};
use vc_types::{AgentAddress, Deadline, HostPath, VsockCid, VsockPort};

const USAGE: &str = "usage: health vsock:CID:PORT | hybrid:SOCKET:PORT | unix:SOCKET [seconds]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<String, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = parse(&args.next().ok_or(USAGE)?)?;
    let seconds = args.next().map_or(Ok(10), |text| text.parse())?;
    let start = Instant::now();
    let _agent =
        Connector::at_once().connect(&address, Deadline::after(Duration::from_secs(seconds))).await?;
    Ok(format!("the agent at {address} answers, after {:?}", start.elapsed()))
}

fn parse(text: &str) -> Result<AgentAddress, Box<dyn Error>> {
    let (kind, rest) = text.split_once(':').ok_or(USAGE)?;
    if kind == "unix" {
        return Ok(AgentAddress::Unix { socket: HostPath::new(rest)? });
    }
    let (target, port) = rest.rsplit_once(':').ok_or(USAGE)?;
    let port = VsockPort(port.parse()?);
    match kind {
        "vsock" => Ok(AgentAddress::Vsock { cid: VsockCid(target.parse()?), port }),
        "hybrid" => Ok(AgentAddress::HybridVsock { socket: HostPath::new(target)?, port }),
        _ => Err(USAGE.into()),
    }
}
