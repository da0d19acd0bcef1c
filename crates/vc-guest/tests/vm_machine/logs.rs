//! What the agent says by other ports than that of the protocol.

use super::guest::{Guest, Plan, Stream};

/// Reads until `text` has come.
async fn read_until(stream: &mut Stream, text: &str) -> String {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !String::from_utf8_lossy(&all).contains(text) {
        let length = stream.read_some(&mut buffer).await;
        assert!(length > 0, "the stream ended without {text:?}: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(all).unwrap()
}

async fn guest(parameters: &[&str]) -> Option<Guest> {
    let mut plan = Plan::new()?;
    plan.kernel_params.extend(parameters.iter().map(|&parameter| parameter.to_owned()));
    Some(plan.boot().await)
}

#[tokio::test]
async fn the_log_comes_as_json_lines_also_those_from_before_anybody_listened() {
    let Some(guest) = guest(&["agent.log=debug", "agent.log_vport=1025"]).await else { return };
    let mut log = guest.connect(1025).await;
    let early = read_until(&mut log, "serving\"").await;
    let first: serde_json::Value = serde_json::from_str(early.lines().next().unwrap()).unwrap();
    for key in ["ts", "level", "msg", "source", "subsystem"] {
        assert!(first[key].is_string(), "no {key} in {first}");
    }
    guest.shell("talk", vec![], &[], "true").await;
    let late = read_until(&mut log, "\"method\":\"RemoveContainer\"").await;
    assert!(late.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count() > 3);
    guest.end().await;
}

#[tokio::test]
async fn a_debug_console_answers_when_it_is_asked_for() {
    let Some(guest) = guest(&["agent.debug_console"]).await else { return };
    let mut console = guest.connect(1026).await;
    console.write_all(b"cat /proc/sys/kernel/ostype\n").await;
    read_until(&mut console, "Linux").await;
    console.write_all(b"ls /run\n").await;
    read_until(&mut console, "vc").await;
    console.write_all(b"mounts\n").await;
    read_until(&mut console, " - tmpfs").await;
    console.write_all(b"frobnicate\n").await;
    read_until(&mut console, "the processes").await;
    guest.end().await;
}
