//! The figures of a container, next to the least that a call can be: a health check over ttrpc alone.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::with_timeout;
use vc_agent::{Containers, Guest};
use vc_agent_protocol::health::CheckRequest;
use vc_agent_protocol::health_ttrpc::HealthClient;
use vc_types::AgentAddress;

use crate::Result;
use crate::bed::{Bed, deadline};
use crate::series::{Series, compare, heading};

pub(crate) async fn measure(bed: &Bed, rounds: usize) -> Result<()> {
    let rounds = if rounds == 0 { 300 } else { rounds };
    let raw = HealthClient::new(ttrpc::asynchronous::Client::new(Socket::new(dial(bed.address()).await?)));
    let [mut ping, mut check, mut stats]: [Series; 3] = Default::default();
    for _ in 0..rounds {
        // What comes first after the figures pays for the guest's tidying up after them.
        raw.check(with_timeout(60_000_000_000), &CheckRequest::new()).await?;
        let start = Instant::now();
        raw.check(with_timeout(60_000_000_000), &CheckRequest::new()).await?;
        ping.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        bed.agent.check(deadline()).await?;
        check.push(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        bed.agent.container_stats(bed.container(), deadline()).await?;
        stats.push(start.elapsed().as_secs_f64() * 1e6);
    }
    heading("one call", rounds);
    let reference = ("Check, ttrpc alone", &ping);
    compare("us", reference, ("Check, by the client", &check));
    compare("us", reference, ("StatsContainer, by the client", &stats));
    Ok(())
}

async fn dial(address: &AgentAddress) -> Result<UnixStream> {
    let AgentAddress::HybridVsock { socket, port } = address else {
        return Err("this measures vsock devices in user space only".into());
    };
    let mut stream = UnixStream::connect(socket.as_path()).await?;
    stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(stream)
}
