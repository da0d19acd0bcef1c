//! What a runtime asks of containers and their processes.

use crate::guest::{Guest, deadline, refusal, rootfs};
use serde_json::{Value, json};
use std::time::Duration;
use ttrpc::Code;
use vc_agent_protocol::agent;

fn shell(script: &str) -> Value {
    json!({"process": {"args": ["sh", "-c", script]}})
}

fn sleeper() -> Value {
    json!({"process": {"args": ["sleep", "600"]}})
}

#[tokio::test]
async fn a_process_gets_its_arguments_as_they_are() {
    let Some(guest) = Guest::boot().await else { return };
    let arguments = ["printf", "%s|", "a b", "", "c\nd", "$HOME", "ü"];
    let want = "a b||c\nd|$HOME|ü|";
    let process = json!({"args": arguments});
    assert_eq!(guest.run("c", &json!({"process": process})).await.stdout, want);
    guest.start("c", &sleeper()).await;
    guest.exec("c", "e", &process).await.unwrap();
    assert_eq!(guest.outcome("c", "e").await.stdout, want);
    // The largest that is taken, through all hands.
    let long = "x".repeat(100_000);
    guest
        .exec(
            "c",
            "long",
            &json!({"args": ["sh", "-c", "echo ${#X}"], "env": ["PATH=/bin", format!("X={long}")]}),
        )
        .await
        .unwrap();
    assert_eq!(guest.outcome("c", "long").await.stdout, "100000\n");
    guest.power_off().await;
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_is_given() {
    let Some(guest) = Guest::boot().await else { return };
    let script = "tty >/dev/null && stty size && read -r line && echo got $line && stty size";
    let process = json!({
        "args": ["sh", "-c", script], "terminal": true, "consoleSize": {"height": 30, "width": 100},
    });
    guest.start("c", &json!({"process": process})).await;
    resize_and_answer(&guest, "c").await;
    let first = guest.outcome("c", "c").await;
    guest.remove("c").await;

    guest.start("c", &sleeper()).await;
    guest.exec("c", "e", &process).await.unwrap();
    resize_and_answer(&guest, "e").await;
    let second = guest.outcome("c", "e").await;
    for outcome in [first, second] {
        let stdout = outcome.stdout.replace("\r\n", "\n");
        // The terminal echoes what is typed.
        assert_eq!((stdout.as_str(), outcome.status), ("it\ngot it\n24 80\n", 0), "{outcome:?}");
    }
    let too_wide = json!({"args": ["true"], "terminal": true, "consoleSize": {"height": 1, "width": 70_000}});
    assert_eq!(refusal(guest.exec("c", "wide", &too_wide).await).0, Code::INVALID_ARGUMENT);
    guest.power_off().await;
}

/// Reads the size at first, changes it, and lets the process go on.
async fn resize_and_answer(guest: &Guest, exec: &str) {
    let read = agent::ReadStreamRequest {
        container_id: "c".into(),
        exec_id: exec.into(),
        len: 100,
        ..Default::default()
    };
    let mut size = Vec::new();
    while !size.ends_with(b"\n") {
        size.extend(guest.streams.read_stdout(deadline(), &read).await.unwrap().data);
    }
    assert_eq!(size, b"30 100\r\n");
    let size = agent::TtyWinResizeRequest {
        container_id: "c".into(),
        exec_id: exec.into(),
        row: 24,
        column: 80,
        ..Default::default()
    };
    guest.calls.tty_win_resize(deadline(), &size).await.unwrap();
    let line = agent::WriteStreamRequest {
        container_id: "c".into(),
        exec_id: exec.into(),
        data: b"it\n".to_vec(),
        ..Default::default()
    };
    guest.calls.write_stdin(deadline(), &line).await.unwrap();
}

#[tokio::test]
async fn hooks_are_told_the_annotations() {
    let Some(guest) = Guest::boot().await else { return };
    let root = rootfs("c");
    let save = format!("/bin/busybox cat > {root}/state");
    let hook = json!([{"path": format!("{root}/bin/sh"), "args": ["sh", "-c", save.replace("/bin/busybox", &format!("{root}/bin/busybox"))]}]);
    let patch = json!({
        "process": {"args": ["cat", "/state"]},
        "annotations": {"org.example.key": "some value"},
        "hooks": {"createRuntime": hook},
    });
    let state: Value = serde_json::from_str(&guest.run("c", &patch).await.stdout).unwrap();
    assert_eq!(state["annotations"]["org.example.key"], "some value");
    assert_eq!(state["id"], "c");
    // A hook that fails is the failure of the creation.
    let failing = json!({"hooks": {"createRuntime": [{"path": format!("{root}/bin/false")}]}});
    let (_, message) = refusal(guest.calls.create_container(deadline(), &guest.request("c", &failing)).await);
    assert!(message.contains("hook"), "{message}");
    guest.power_off().await;
}

/// Those of the specification and those of the guest image, which is a disk here.
#[tokio::test]
async fn late_hooks_run_after_the_start_and_the_end() {
    let Some(guest) = Guest::boot().await else { return };
    let busybox = "/run/layers/busybox/bin/busybox";
    let save = |what: &str| {
        let script = format!("{busybox} mkdir -p /run/hooked; {busybox} cat > /run/hooked/{what}");
        json!({"path": busybox, "args": ["sh", "-c", script]})
    };
    let hooks =
        json!({"poststart": [save("started")], "poststop": [json!({"path": "/absent"}), save("stopped")]});
    let patch = json!({
        "process": {"args": ["sleep", "600"]}, "hooks": hooks, "annotations": {"org.example.key": "some value"},
    });
    // The hooks' program is on its disk.
    guest.start("keeper", &sleeper()).await;
    guest.start("c", &patch).await;
    let look = |id: &str, what: &str| {
        let bind =
            json!({"destination": "/mnt", "type": "bind", "source": "/run/hooked", "options": ["bind"]});
        (id.to_owned(), json!({"process": {"args": ["cat", format!("/mnt/{what}")]}, "mounts": [bind]}))
    };
    let told = async |(id, patch): (String, Value)| {
        serde_json::from_str::<Value>(&guest.run(&id, &patch).await.stdout).unwrap()
    };
    let state = told(look("d", "started")).await;
    assert_eq!((&state["id"], &state["status"]), (&json!("c"), &json!("running")));
    assert_eq!(state["annotations"]["org.example.key"], "some value");
    assert!(state["pid"].as_i64().unwrap() > 1, "{state}");
    guest.remove("c").await;
    let state = told(look("e", "stopped")).await;
    assert_eq!((&state["id"], &state["status"]), (&json!("c"), &json!("stopped")));

    let failing = json!({"process": {"args": ["sleep", "600"]}, "hooks": {"poststart": [{"path": busybox, "args": ["false"]}]}});
    guest.calls.create_container(deadline(), &guest.request("f", &failing)).await.unwrap();
    let start = agent::StartContainerRequest { container_id: "f".into(), ..Default::default() };
    let (_, message) = refusal(guest.calls.start_container(deadline(), &start).await);
    assert!(message.contains("poststart"), "{message}");
    assert_eq!(guest.wait("f", "f").await, 128 + 9);
    guest.remove("f").await;
    guest.power_off().await;
}

#[tokio::test]
async fn containers_may_share_their_pids() {
    let Some(guest) = Guest::boot().await else { return };
    for id in ["a", "b"] {
        let mut request = guest.request(id, &sleeper());
        request.sandbox_pidns = true;
        guest.calls.create_container(deadline(), &request).await.unwrap();
        let start = agent::StartContainerRequest { container_id: id.into(), ..Default::default() };
        guest.calls.start_container(deadline(), &start).await.unwrap();
    }
    let count = "ps | grep -c '[s]leep 600'";
    assert_eq!(guest.sh("a", "e", count).await.stdout, "2\n");
    // The end of one leaves the other, and the namespace, alone.
    guest.remove("a").await;
    assert_eq!(guest.sh("b", "e", count).await.stdout, "1\n");
    guest.start("own", &sleeper()).await;
    assert_eq!(guest.sh("own", "e", count).await.stdout, "1\n");
    guest.power_off().await;
}

#[tokio::test]
async fn a_plugged_disk_has_the_guests_numbers() {
    let Some(guest) = Guest::boot().await else { return };
    let device = |path: &str| agent::Device {
        id: guest.disk(),
        type_: "blk".into(),
        vm_path: "/dev/vdx".into(),
        container_path: path.into(),
        ..Default::default()
    };
    let host = json!({"path": "/dev/volume", "type": "b", "major": 8, "minor": 48, "fileMode": 0o600});
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": 48, "access": "r"},
    ]);
    // The superblock of EROFS is at 1024, and begins with its magic number.
    let script = "dd if=/dev/volume bs=1 skip=1024 count=4 2>/dev/null | hexdump -e '4/1 \"%02x\"'; echo";
    let mut request = guest.request(
        "c",
        &json!({
            "process": {"args": ["sh", "-c", script]},
            "linux": {"devices": [host], "resources": {"devices": rules}},
        }),
    );
    request.devices = vec![device("/dev/volume")];
    guest.calls.create_container(deadline(), &request).await.unwrap();
    let start = agent::StartContainerRequest { container_id: "c".into(), ..Default::default() };
    guest.calls.start_container(deadline(), &start).await.unwrap();
    assert_eq!(guest.outcome("c", "c").await.stdout, "e2e1f5e0\n");
    guest.remove("c").await;

    // L-29: a device that cannot be had is an error, it does not go missing.
    for path in ["/dev/other", ""] {
        request.devices = vec![device(path)];
        let (code, message) = refusal(guest.calls.create_container(deadline(), &request).await);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
    }
    guest.power_off().await;
}

#[tokio::test]
async fn what_cannot_run_is_told_by_code_and_by_status() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &sleeper()).await;
    let cases = [
        ("/bin/frobnicate", Code::NOT_FOUND),
        ("frobnicate", Code::NOT_FOUND),
        ("/etc", Code::PERMISSION_DENIED),
        ("/etc/not-executable", Code::PERMISSION_DENIED),
        ("/script", Code::NOT_FOUND),
    ];
    let script = "printf '#!/absent\\n' > /script && chmod 755 /script";
    assert_eq!(guest.sh("c", "make", script).await.status, 0);
    for (command, want) in cases {
        let (code, message) = refusal(guest.exec("c", "e", &json!({"args": [command]})).await);
        assert_eq!(code, want, "{message}");
    }
    for (command, want) in &cases[..4] {
        let request = guest.request("d", &json!({"process": {"args": [command]}}));
        assert_eq!(refusal(guest.calls.create_container(deadline(), &request).await).0, *want, "{command}");
    }
    // The names are free again, and an exec without any rights of root runs as well.
    assert_eq!(guest.sh("c", "e", "exit 3").await.status, 3);
    let user = json!({"args": ["sh", "-c", "echo $HOME; exit 4"], "user": {"uid": 1234, "gid": 7}});
    guest.exec("c", "user", &user).await.unwrap();
    let outcome = guest.outcome("c", "user").await;
    assert_eq!((outcome.stdout.as_str(), outcome.status), ("/\n", 4));
    guest.power_off().await;
}

#[tokio::test]
async fn signals_reach_one_process_or_all() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &shell("sleep 600 & sleep 600 & wait")).await;
    guest
        .exec(
            "c",
            "trap",
            &json!({"args": ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 1; done"]}),
        )
        .await
        .unwrap();
    let read = agent::ReadStreamRequest {
        container_id: "c".into(),
        exec_id: "trap".into(),
        len: 100,
        ..Default::default()
    };
    assert_eq!(guest.streams.read_stdout(deadline(), &read).await.unwrap().data, b"ready\n");
    guest.signal("c", "trap", 15).await.unwrap();
    assert_eq!(guest.wait("c", "trap").await, 9);
    // L-38: one that has ended is signalled well enough.
    guest.signal("c", "trap", 15).await.unwrap();
    guest.exec("c", "killed", &json!({"args": ["sleep", "600"]})).await.unwrap();
    guest.signal("c", "killed", 9).await.unwrap();
    assert_eq!(guest.wait("c", "killed").await, 128 + 9);
    // A first process without a handler would not see SIGTERM.
    guest.signal("c", "c", 15).await.unwrap();
    assert_eq!(guest.wait("c", "c").await, 128 + 9);
    guest.signal("c", "", 9).await.unwrap();
    let (code, _) = refusal(guest.signal("c", "absent", 9).await);
    assert_eq!(code, Code::NOT_FOUND);
    let (code, _) = refusal(guest.signal("c", "c", 99).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    guest.power_off().await;
}

#[tokio::test]
async fn r10_what_was_only_created_or_is_paused_is_removed() {
    let Some(guest) = Guest::boot().await else { return };
    guest.calls.create_container(deadline(), &guest.request("created", &sleeper())).await.unwrap();
    guest.remove("created").await;

    guest.start("paused", &sleeper()).await;
    guest.exec("paused", "e", &json!({"args": ["sleep", "600"]})).await.unwrap();
    let pause = agent::PauseContainerRequest { container_id: "paused".into(), ..Default::default() };
    guest.calls.pause_container(deadline(), &pause).await.unwrap();
    let (code, _) = refusal(guest.exec("paused", "f", &json!({"args": ["true"]})).await);
    assert_eq!(code, Code::FAILED_PRECONDITION);
    let (code, _) = refusal(guest.calls.pause_container(deadline(), &pause).await);
    assert_eq!(code, Code::FAILED_PRECONDITION);
    guest.remove("paused").await;

    // A mount in the container's root that is none of its storages goes first, and so nothing below
    // it is deleted.
    let keep = json!({
        "process": {"args": ["sh", "-c", "ls /mnt"]},
        "mounts": [{"destination": "/mnt", "type": "bind", "source": "/run/keep", "options": ["bind"]}],
    });
    let root = rootfs("bound");
    let busybox = format!("{root}/bin/busybox");
    let make = format!(
        "{busybox} mkdir -p /run/keep; {busybox} touch /run/keep/file; \
        {busybox} mkdir -p {root}/deep; {busybox} mount --bind /run/keep {root}/deep"
    );
    let hooks =
        json!({"hooks": {"prestart": [{"path": format!("{root}/bin/sh"), "args": ["sh", "-c", make]}]}});
    guest.run("bound", &hooks).await;
    assert_eq!(guest.run("after", &keep).await.stdout, "file\n");
    guest.power_off().await;
}

#[tokio::test]
async fn limits_can_be_changed_and_bad_ones_change_nothing() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &json!({"process": {"args": ["sleep", "600"]}, "linux": {"resources": {"cpu": {"quota": 20_000, "period": 50_000}}}})).await;
    let read = "cd /sys/fs/cgroup; cat cpu.max cpu.weight memory.max pids.max";
    assert_eq!(guest.sh("c", "a", read).await.stdout, "20000 50000\n100\nmax\nmax\n");
    let update = json!({
        "cpu": {"period": 40_000, "shares": 2048}, "memory": {"limit": 67_108_864}, "pids": {"limit": 99},
    });
    guest.update("c", &update).await.unwrap();
    let want = "20000 40000\n79\n67108864\n99\n";
    assert_eq!(guest.sh("c", "b", read).await.stdout, want);
    for bad in [
        json!({"memory": {"swappiness": 1, "limit": 1_048_576}}),
        json!({"devices": [{"allow": true, "access": "rwm"}]}),
        json!({"cpu": {"realtimeRuntime": 7, "shares": 2}}),
    ] {
        assert_eq!(refusal(guest.update("c", &bad).await).0, Code::INVALID_ARGUMENT, "{bad}");
    }
    assert_eq!(guest.sh("c", "c2", read).await.stdout, want);
    guest.power_off().await;
}

#[tokio::test]
async fn l40_counters_include_network_and_disks() {
    let Some(guest) = Guest::boot().await else { return };
    let capabilities = json!(["CAP_NET_ADMIN", "CAP_NET_RAW"]);
    let own_network = json!({
        "process": {
            "args": ["sh", "-c", "ip link set lo up; ping -c 3 127.0.0.1 >/dev/null; sleep 600"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "linux": {"namespaces": [{"type": "network"}], "resources": {"pids": {"limit": 50}}},
    });
    guest.start("c", &own_network).await;
    // Ends once the pings are through: each is received twice, as a request and as its answer.
    let wait = "until grep -qx sleep /proc/[0-9]*/comm 2>/dev/null; do :; done; dd if=/bin/busybox of=/tmp/x bs=64k 2>/dev/null";
    assert_eq!(guest.sh("c", "wait", wait).await.status, 0);
    let stats = guest.stats("c").await;
    let network = &stats.network_stats;
    assert_eq!(network.len(), 1, "{network:?}");
    assert!(network[0].name == "lo" && network[0].rx_packets >= 6 && network[0].tx_bytes > 0, "{network:?}");
    let cgroup = &stats.cgroup_stats;
    assert!(cgroup.cpu_stats.cpu_usage.total_usage > 1_000_000, "nanoseconds");
    assert!(cgroup.memory_stats.usage.usage > 0 && cgroup.memory_stats.usage.max_usage > 0);
    assert_eq!(cgroup.pids_stats.limit, 50);
    assert_eq!(cgroup.pids_stats.current, 1, "the shell has become `sleep`");
    assert!(cgroup.hugetlb_stats.contains_key("2MB"), "{:?}", cgroup.hugetlb_stats);
    assert!(!cgroup.blkio_stats.io_service_bytes_recursive.is_empty());
    guest.power_off().await;
}

#[tokio::test]
async fn an_exec_while_the_container_ends_is_an_error_or_runs() {
    let Some(guest) = Guest::boot().await else { return };
    guest.start("c", &shell("sleep 0.2")).await;
    let until_end = async {
        for n in 0..200 {
            let name = format!("e{n}");
            match guest.exec("c", &name, &json!({"args": ["true"]})).await {
                Ok(_) => drop(guest.outcome("c", &name).await),
                Err(error) => return error,
            }
        }
        panic!("the container does not end");
    };
    let error = tokio::time::timeout(Duration::from_secs(100), until_end).await.unwrap();
    let (code, message) = refusal::<()>(Err(error));
    assert_eq!(code, Code::FAILED_PRECONDITION, "{message}");
    assert_eq!(guest.wait("c", "c").await, 0);
    guest.remove("c").await;
    guest.power_off().await;
}
