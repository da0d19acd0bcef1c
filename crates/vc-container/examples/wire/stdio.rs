//! The standard output of a process, next to bytes over a vsock connection of their own.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixListener;
use vc_agent::io::Output;
use vc_agent::{ProcessRef, Processes, Streams};
use vc_types::AgentAddress;

use crate::Result;
use crate::bed::Bed;
use crate::series::{Series, compare, heading};

/// How much is sent in a round.
const MIB: usize = 24;

/// The port of the host that the raw bytes come to.
const PORT: u32 = 2000;

pub(crate) async fn measure(bed: &Bed, rounds: usize) -> Result<()> {
    let rounds = if rounds == 0 { 5 } else { rounds };
    let AgentAddress::HybridVsock { socket, .. } = bed.address() else {
        return Err("this measures vsock devices in user space only".into());
    };
    let listener = UnixListener::bind(format!("{socket}_{PORT}"))?;
    let [mut raw, mut stdout, mut plain]: [Series; 3] = Default::default();
    let (count, port) = (MIB.to_string(), PORT.to_string());
    for round in 0..rounds {
        let source = bed.exec(&format!("raw{round}"), &["/source", &port, &count]).await?;
        let (mut stream, _) = listener.accept().await?;
        raw.push(speed(&mut stream).await?);
        drop(stream);
        bed.agent.wait(&source).await?;

        let blocks = format!("count={count}");
        let dd = ["dd", "if=/dev/zero", "bs=1M", &blocks];
        let source = bed.exec(&format!("dd{round}"), &dd).await?;
        let mut output = Output::stdout(&bed.agent, &source);
        stdout.push(speed(&mut output).await?);
        bed.agent.wait(&source).await?;

        let source = bed.exec(&format!("plain{round}"), &dd).await?;
        plain.push(speed_of_calls(bed, &source).await?);
        bed.agent.wait(&source).await?;
    }
    heading(&format!("{MIB} MiB out of a container"), rounds);
    compare("MiB/s", ("a vsock connection of their own", &raw), ("standard output", &stdout));
    let calls = ("standard output, one call after the other", &plain);
    compare("MiB/s", calls, ("standard output, read ahead", &stdout));
    Ok(())
}

/// As [`speed`], with one call after the other, each for as much as read ahead.
async fn speed_of_calls(bed: &Bed, process: &ProcessRef) -> Result<f64> {
    let read = || bed.agent.read_stdout(process, 256 * 1024);
    let first = read().await?.len();
    let (start, mut came) = (Instant::now(), first);
    loop {
        match read().await?.len() {
            0 => break,
            more => came += more,
        }
    }
    per_second(came, first, start)
}

/// MiB per second from the first bytes to the last. Not to the end of file: vhost-device-vsock does not pass on that the
/// guest has closed its side of a connection.
async fn speed(stream: &mut (impl AsyncRead + Unpin)) -> Result<f64> {
    let mut buffer = vec![0; 1 << 20];
    let first = stream.read(&mut buffer).await?;
    let (start, mut came) = (Instant::now(), first);
    while came < MIB << 20 {
        match stream.read(&mut buffer).await? {
            0 => break,
            more => came += more,
        }
    }
    per_second(came, first, start)
}

fn per_second(came: usize, first: usize, start: Instant) -> Result<f64> {
    if came != MIB << 20 {
        return Err(format!("{came} bytes of {MIB} MiB came").into());
    }
    let bytes = u32::try_from(came - first)?;
    Ok(f64::from(bytes) / f64::from(1 << 20) / start.elapsed().as_secs_f64())
}
