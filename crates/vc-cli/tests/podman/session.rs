//! One session, line by line, with `vc` and with runc. What comes out is the same, but for the lines that
//! docs/PODMAN.md lists with the reason.

use crate::engine::{Answer, Engine};

/// The name of a line, and the line. In the order in which they are run.
const LINES: [(&str, &str); 41] = [
    (
        "volumes",
        "echo of the host > $D/volume/file; podman run --rm --network none -v $D/volume:/data -v $D/volume:/ro:ro -v named:/named \
        --mount type=tmpfs,dst=/scratch,tmpfs-size=1m --tmpfs /t:size=2m,mode=1777 $B sh -c 'exec 2>&1; cat /data/file; \
        echo x > /ro/x || echo ro; echo written > /data/new; echo kept > /named/kept; df -m /t /scratch | awk \"{print \\$2,\\$6}\"; \
        stat -c %a /t /scratch /named'; cat $D/volume/new",
    ),
    (
        "user",
        "podman run --rm --network none --user 1000:1000 --hostname box -e A=b -w /tmp --read-only -v named:/named $B sh -c \
        'exec 2>&1; id; hostname; pwd; echo $A; cat /named/kept; echo x > /x; echo x > /tmp/x && echo /tmp is a tmpfs; touch /etc/x; exit 7'",
    ),
    (
        "capabilities and limits",
        "podman run --rm --network none --cap-drop all --cap-add net_raw,chown --security-opt no-new-privileges \
        --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 33 $B sh -c 'grep -E \"Cap|NoNew|Seccomp:\" /proc/self/status; \
        g=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cd /sys/fs/cgroup; \
        cat $g/memory.max memory/memory.limit_in_bytes $g/pids.max pids/pids.max 2>/dev/null; \
        cat $g/cpu.max 2>/dev/null || echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us)'",
    ),
    (
        "standard input",
        "printf 'one\\ntwo' | podman run --rm -i --network none $B sh -c 'cat; echo; cat | wc -c'",
    ),
    (
        "terminal",
        "(sleep 2 | script -qec 'podman run --rm -it --network none $B sh -c \"sleep 1; tty; test -t 1 && echo terminal; exit 3\"' /dev/null; echo $?) | tr -d '\\r' | sed 's/\\^@//'",
    ),
    ("command not found", "podman run --rm --network none $B frobnicate 2>/dev/null"),
    ("command not executable", "podman run --rm --network none $B /etc/passwd 2>/dev/null"),
    (
        "run detached",
        "podman run -d --name c --network none --init -v $D/volume:/data:rw --health-cmd 'test -e /tmp/healthy' \
        --health-interval disable --stop-signal USR1 $B sh -c \
        'trap \"echo usr1; exit 5\" USR1; trap \"echo hup\" HUP; echo started; echo err >&2; while :; do sleep 0.1; done'",
    ),
    (
        "logs",
        "eventually 'podman logs c 2>&1 | grep -q err'; podman logs c 2>/dev/null; podman logs c 2>&1 >/dev/null",
    ),
    ("ps", "podman ps --format '{{.Names}} {{.State}} {{.Image}}' | sed 's/Up.*ago/Up/'"),
    (
        "inspect",
        "podman inspect c --format '{{.State.Status}} {{.State.Running}} {{.State.ExitCode}} {{.HostConfig.NetworkMode}} {{.State.Health.Status}}'; \
        test $(podman inspect c --format '{{.State.Pid}}') -gt 1",
    ),
    (
        "exec",
        "printf in | podman exec -i -e X=1 -w /etc -u 1000 c sh -c 'cat; echo; echo $X; pwd; id -u; exit 9'",
    ),
    (
        "exec terminal",
        "(sleep 2 | script -qec 'podman exec -it c sh -c \"sleep 1; test -t 0 && tty; exit 4\"' /dev/null; echo $?) | tr -d '\\r' | sed 's/\\^@//'",
    ),
    (
        "exec detached",
        "podman exec -d c sh -c 'echo detached > /data/execd'; eventually 'grep -q . $D/volume/execd'; cat $D/volume/execd",
    ),
    ("exec that leaves a child", "timeout 200 podman exec c sh -c 'sleep 1000 & echo left'; echo $?"),
    ("exec not found", "podman exec c frobnicate 2>/dev/null"),
    ("exec not executable", "podman exec c /etc/passwd 2>/dev/null"),
    ("unhealthy", "podman healthcheck run c 2>&1"),
    (
        "healthy",
        "podman exec c touch /tmp/healthy; podman healthcheck run c; podman inspect c --format '{{.State.Health.Status}}'",
    ),
    ("kernel", "podman exec c uname -r"),
    ("devices", "podman exec c ls /dev"),
    ("init", "podman exec c sh -c 'cut -d \"\" -f1 /proc/1/cmdline | grep -o podman-init'"),
    ("copy in", "echo copied > $D/f; podman cp $D/f c:/tmp/f; podman exec c cat /tmp/f"),
    ("copy into a volume", "podman cp $D/f c:/data/cp; cat $D/volume/cp"),
    ("copy out", "podman exec c sh -c 'echo from > /tmp/out'; podman cp c:/tmp/out $D/out; cat $D/out"),
    (
        "copy not to the host",
        "podman cp $D/f c:/vc-copied; podman exec c cat /vc-copied; test ! -e /vc-copied && echo not on the host",
    ),
    ("top", "podman top c args 2>&1 | wc -l"),
    ("top by ps", "podman top c -o args | grep -c 'sh -c'"),
    (
        "stats",
        "podman stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' c | awk '{print $1, ($2 > 0), ($3 != \"0B\")}'",
    ),
    (
        "pause",
        "podman pause c; podman inspect c --format '{{.State.Status}}'; podman exec c true 2>/dev/null",
    ),
    ("unpause", "podman unpause c; podman inspect c --format '{{.State.Status}}'"),
    (
        "kill",
        "podman kill -s HUP c; eventually 'podman logs c 2>/dev/null | grep -q hup'; podman logs c 2>/dev/null | grep hup",
    ),
    // Now and then Podman tells a directory that has changed as added, and not what is in it; with runc as well.
    ("diff", "podman diff c | grep -c ' /tmp$'"),
    ("remove while it runs", "podman rm c 2>/dev/null"),
    (
        "stop",
        "podman stop -t 60 c; podman inspect c --format '{{.State.Status}} {{.State.ExitCode}}'; podman logs c 2>/dev/null | sed -n '$p'",
    ),
    ("start again", "podman start c; podman exec c cat /tmp/f"),
    ("stop by force", "podman exec -d c sh -c 'kill -STOP 2'; podman kill c; podman wait c"),
    ("remove", "podman rm c; podman ps -a --format '{{.Names}}'"),
    (
        "environment",
        "podman run --rm --network none --env-host=false -e B=c $B sh -c 'env | grep -v HOSTNAME | sort'",
    ),
    ("default network", "podman run --rm $B true 2>&1 | grep -o -- '--network none'"),
    ("volumes again", "podman volume ls -q; podman volume rm named; ls $D/volume | sort"),
];

/// The lines that come out otherwise, as docs/PODMAN.md lists them.
const DIFFERENT: [&str; 4] = ["kernel", "devices", "top", "default network"];

#[test]
fn a_session_is_the_same_with_vc_and_with_runc() {
    let Some(vc) = Engine::with_vc() else { return };
    let runc = Engine::with_runc();
    let document = include_str!("../../../../docs/PODMAN.md");
    let mut wrong = Vec::new();
    for (name, line) in LINES {
        let ours = timed(name, || vc.line(line));
        let listed = DIFFERENT.contains(&name);
        if listed {
            assert!(document.contains(&format!("| {name} |")), "docs/PODMAN.md should tell of {name:?}");
        }
        let Some(runc) = &runc else { continue };
        let theirs = runc.line(line);
        if (ours == theirs) == listed {
            wrong.push(format!("{name}: {line}\nvc:   {ours:?}\nrunc: {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "otherwise than docs/PODMAN.md says:\n{}", wrong.join("\n"));
    let left = vc.left();
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// Says how long a line took, for whoever reads what a test wrote.
fn timed(name: &str, line: impl FnOnce() -> Answer) -> Answer {
    let started = std::time::Instant::now();
    let answer = line();
    let took = started.elapsed().as_secs_f32();
    #[expect(clippy::print_stderr, reason = "a test that takes long says where")]
    {
        eprintln!("{took:6.1} s  {name}");
    }
    answer
}

#[test]
fn every_network_but_none_is_refused_with_the_remedy() {
    let Some(vc) = Engine::with_vc() else { return };
    for network in ["host", "bridge", "ns:/proc/self/ns/net"] {
        let answer = vc.line(&format!("podman run --rm --network {network} $B true 2>&1"));
        assert_ne!(answer.code, Some(0));
        // The bridge may fail in Podman itself, where its plugins are not installed.
        assert!(answer.said.contains("--network none") || network == "bridge", "{network}: {}", answer.said);
    }
    assert_eq!(vc.left(), Vec::<String>::new());
}

#[test]
fn a_user_without_rights_runs_containers() {
    let Some(engine) = Engine::with_vc_of_nobody() else { return };
    let script = "id -u; cat /data/file; echo written > /data/new; echo x > /x && cat /x";
    engine.succeed("echo of the host > $D/file; $AS_USER cp $D/file $D/volume/");
    let said =
        engine.succeed(&format!("podman run --rm --network none -v $D/volume:/data $B sh -c '{script}'"));
    assert_eq!(said, "0\nof the host\nx\n");
    assert_eq!(engine.succeed("cat $D/volume/new; stat -c %u $D/volume/new"), "written\n65534\n");
    assert_eq!(engine.left(), Vec::<String>::new());
}
