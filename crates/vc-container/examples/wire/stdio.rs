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
const MIB: usize = 32;

/// The most bytes of a call, and fewer.
const MOST: u32 = 1 << 20;
const SMALL: u32 = 64 << 10;

/// The port of the host that the raw bytes come to.
const PORT: u32 = 2000;

pub(crate) async fn measure(bed: &Bed, rounds: usize) -> Result<()> {
    let rounds = if rounds == 0 { 5 } else { rounds };
    let AgentAddress::HybridVsock { socket, .. } = bed.address() else {
        return Err("this measures vsock devices in user space only".into());
    };
    let listener = UnixListener::bind(format!("{socket}_{PORT}"))?;
    let [mut raw, mut stdout, mut ahead, mut small]: [Series; 4] = Default::default();
    let (count, port) = (MIB.to_string(), PORT.to_string());
    let to_stdout = ["/source", "-", &count];
    for round in 0..rounds {
        let source = bed.exec(&format!("raw{round}"), &["/source", &port, &count]).await?;
        let (mut stream, _) = listener.accept().await?;
        raw.push(speed(&mut stream).await?);
        drop(stream);
        bed.agent.wait(&source).await?;

        for (most, series) in [(MOST, &mut stdout), (SMALL, &mut small)] {
            let source = bed.exec(&format!("stdout{round}-{most}"), &to_stdout).await?;
            series.push(speed_of_calls(bed, &source, most).await?);
            bed.agent.wait(&source).await?;
        }

        let source = bed.exec(&format!("ahead{round}"), &to_stdout).await?;
        let mut output = Output::stdout(&bed.agent, &source);
        ahead.push(speed(&mut output).await?);
        bed.agent.wait(&source).await?;
    }
    heading(&format!("{MIB} MiB out of a container"), rounds);
    compare("MiB/s", ("a vsock connection of their own", &raw), ("standard output", &stdout));
    compare("MiB/s", ("standard output", &stdout), ("in calls for 64 KiB each", &small));
    compare("MiB/s", ("standard output", &stdout), ("standard output, read ahead", &ahead));
    Ok(())
}

/// As [`speed`], with one call after the other, each for at most `most` bytes.
async fn speed_of_calls(bed: &Bed, process: &ProcessRef, most: u32) -> Result<f64> {
    let read = || bed.agent.read_stdout(process, most);
    let first = read().await?.len();
    let (start, mut came) = (Instant::now(), first);
    while came < MIB << 20 {
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
