//! Another process over the wire, next to what the executor in the guest takes for it.

use std::time::Instant;

use vc_agent::{AgentError, Guest, Processes};

use crate::Result;
use crate::bed::{Bed, deadline};
use crate::series::{Series, compare, heading};

/// How the agent of the guest tells how long its executor was at work, in its metrics.
const SPENT: &str = "vc_agent_executor_seconds_sum";

pub(crate) async fn measure(bed: &Bed, rounds: usize) -> Result<()> {
    let rounds = if rounds == 0 { 30 } else { rounds };
    let [mut executor, mut call, mut whole]: [Series; 3] = Default::default();
    // The first one is slower than all others: its program is read from the disk.
    for round in 0..=rounds {
        let before = spent(bed).await?;
        let start = Instant::now();
        let process = bed.exec(&format!("true{round}"), &["true"]).await?;
        let started = start.elapsed();
        let status = bed.agent.wait(&process).await?;
        let ended = start.elapsed();
        if !status.is_success() {
            return Err(format!("true ended with {status:?}").into());
        }
        if round == 0 {
            continue;
        }
        call.push(started.as_secs_f64() * 1e3);
        whole.push(ended.as_secs_f64() * 1e3);
        if let (Some(before), Some(after)) = (before, spent(bed).await?) {
            executor.push((after - before) * 1e3);
        }
    }
    heading("exec of `true`", rounds);
    let reference = ("the executor in the guest", &executor);
    compare("ms", reference, ("ExecProcess over the wire", &call));
    compare("ms", reference, ("ExecProcess and WaitProcess over the wire", &whole));
    Ok(())
}

/// What the executor has spent so far, in seconds; `None` when the agent does not tell.
async fn spent(bed: &Bed) -> Result<Option<f64>> {
    let metrics = match bed.agent.metrics(deadline()).await {
        Err(AgentError::Unimplemented { .. }) => return Ok(None),
        metrics => metrics?,
    };
    let line = metrics.lines().find_map(|line| line.strip_prefix(SPENT)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.parse().ok()))
}
