//! Whatever happens to the processes of the guest, its agent answers on.

use crate::guest::{Guest, Outcome, deadline, refusal, rootfs};
use serde_json::{Value, json};
use std::time::Duration;
use vc_agent_protocol::agent;

/// A hook that runs `script` as root of the guest, with its pids and mounts, while `id` is created.
fn in_guest(id: &str, script: &str) -> Value {
    let root = rootfs(id);
    let path = format!("PATH={root}/bin");
    json!({"hooks": {"prestart": [
        {"path": format!("{root}/bin/sh"), "args": ["sh", "-c", script], "env": [path]}
    ]}})
}

async fn assert_all_is_well(guest: &Guest) {
    let fine = Outcome { stdout: "fine\n".into(), stderr: String::new(), status: 0 };
    assert_eq!(guest.run("well", &json!({"process": {"args": ["echo", "fine"]}})).await, fine);
}

#[tokio::test]
async fn whoever_is_killed_but_the_first_process_the_agent_answers() {
    let Some(guest) = Guest::boot().await else { return };
    for round in 0..3 {
        guest.start("victim", &json!({"process": {"args": ["sleep", "600"]}})).await;
        // All but PID 1 and itself: the executor, the worker that runs this hook, the shared pid
        // namespace's init, and the other container.
        let request = guest.request("killer", &in_guest("killer", "kill -9 -1"));
        let (_, message) = refusal(guest.calls.create_container(deadline(), &request).await);
        assert!(message.contains("executor"), "round {round}: {message}");
        assert_eq!(guest.wait("victim", "victim").await, 128 + 9);
        guest.remove("victim").await;
        assert_all_is_well(&guest).await;
    }
    guest.power_off().await;
}

#[tokio::test]
async fn an_executor_that_was_killed_is_replaced_unnoticed() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &json!({"process": {"args": ["sleep", "600"]}})).await;
    for round in 0..3 {
        // The executor is the one of that name whose parent is PID 1; its worker is the hook's parent.
        let script = "for p in $(pgrep -f 'exe executor'); do test $p = $PPID || kill -9 $p; done";
        let request = guest.request("killer", &in_guest("killer", script));
        guest.calls.create_container(deadline(), &request).await.unwrap();
        guest.remove("killer").await;
        assert_eq!(guest.sh("c", &format!("e{round}"), "echo on").await.stdout, "on\n");
    }
    guest.power_off().await;
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_limit() {
    let Some(guest) = Guest::boot().await else { return };
    let bomb = json!({
        "process": {"args": ["sh", "-c", "f() { f & f & wait; }; f 2>/dev/null; sleep 600"]},
        "linux": {"resources": {"pids": {"limit": 64}, "cpu": {"quota": 20_000}}},
    });
    guest.start("bomb", &bomb).await;
    let full = async {
        while guest.stats("bomb").await.cgroup_stats.pids_stats.current < 50 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), full).await.unwrap();
    // Others are not touched.
    assert_all_is_well(&guest).await;
    // One more process in there either comes to be, or is refused by name.
    if let Err(error) = guest.exec("bomb", "e", &json!({"args": ["true"]})).await {
        let (code, message) = refusal::<()>(Err(error));
        assert_eq!(code, ttrpc::Code::RESOURCE_EXHAUSTED, "{message}");
    }
    guest.signal("bomb", "", 9).await.unwrap();
    assert_eq!(guest.wait("bomb", "bomb").await, 128 + 9);
    guest.remove("bomb").await;
    assert_all_is_well(&guest).await;
    guest.power_off().await;
}

#[tokio::test]
async fn a_memory_hog_dies_alone_and_the_host_is_told() {
    let Some(guest) = Guest::boot().await else { return };
    let hog = |limit: Value| {
        json!({
            "process": {"args": ["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]},
            "linux": {"resources": {"memory": limit}},
        })
    };
    let next = agent::GetOOMEventRequest::new();
    for round in 0..2 {
        guest.start("hog", &hog(json!({"limit": 16 << 20}))).await;
        let event = guest.streams.get_oom_event(deadline(), &next).await.unwrap();
        assert_eq!(event.container_id, "hog", "round {round}");
        assert_eq!(guest.wait("hog", "hog").await, 128 + 9);
        guest.remove("hog").await;
    }
    assert_all_is_well(&guest).await;
    guest.power_off().await;
}

#[tokio::test]
async fn a_memory_hog_without_a_limit_does_not_take_the_agent_along() {
    let Some(guest) = Guest::boot().await else { return };
    let script = "dd if=/dev/zero of=/dev/null bs=150M count=1 & dd if=/dev/zero of=/dev/null bs=150M count=1 & wait; echo over";
    for _ in 0..2 {
        let outcome =
            guest.run("hog", &json!({"process": {"args": ["sh", "-c", script], "oomScoreAdj": 500}})).await;
        assert!(outcome.stdout.contains("over") || outcome.status == 128 + 9, "{outcome:?}");
        assert_all_is_well(&guest).await;
    }
    guest.power_off().await;
}

#[tokio::test]
async fn zombies_are_collected_and_panics_stay_in_their_call() {
    let Some(guest) = Guest::boot().await else { return };
    // Orphans of a container whose first process does not wait for them become its children; those of
    // one that ends, the agent's.
    let orphans = "for n in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0.1 & sleep 0.1 &'; done";
    for _ in 0..3 {
        assert_eq!(guest.run("c", &json!({"process": {"args": ["sh", "-c", orphans]}})).await.status, 0);
    }
    let root = rootfs("count");
    // Those of PID 1: the worker that runs this hook may have one that it is about to collect.
    let count = format!("ps -o stat,ppid | grep -c '^Z.* 1$' > {root}/zombies; exit 0");
    let mut patch = in_guest("count", &count);
    patch["process"] = json!({"args": ["cat", "/zombies"]});
    assert_eq!(guest.run("count", &patch).await.stdout, "0\n");
    guest.power_off().await;
}

#[tokio::test]
async fn the_output_of_a_process_ends_with_it_and_not_with_what_it_left_behind() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &json!({"process": {"args": ["sleep", "1000000"]}})).await;
    let outcome = guest.sh("c", "leaves", "sleep 1000000 & echo left; exit 3").await;
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("left\n", 3));
    // What images of systemd have as their stop signal is one in real time, too, and no less of an end.
    guest.exec("c", "sleeps", &json!({"args": ["sleep", "1000000"]})).await.unwrap();
    guest.signal("c", "sleeps", 37).await.unwrap();
    assert_eq!(guest.wait("c", "sleeps").await, 128 + 37);
    guest.remove("c").await;
    guest.power_off().await;
}
