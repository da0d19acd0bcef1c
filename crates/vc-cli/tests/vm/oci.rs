//! `vc` as an OCI runtime: the commands that a container engine calls, and the process that its monitor watches.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use vc_tests::Mounted;

use crate::run::{Bench, assert_code, feed, text};

/// An OCI bundle whose root file system is a mounted EROFS image.
pub(crate) struct Bundle<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) dir: PathBuf,
    _mounted: Mounted,
}

impl<'a> Bundle<'a> {
    /// `None`, with the reason printed, when this user cannot mount.
    pub(crate) fn new(bench: &'a Bench, process: &Value, hooks: &Value) -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let dir = bench.layers.path().join("bundle");
        let mut mounted = Mounted::default();
        mounted.by_loop(&bench.busybox, &dir.join("rootfs"));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            ],
            "annotations": {"org.example.color": "green"},
            "hooks": hooks,
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]},
        });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        Some(Self { bench, dir, _mounted: mounted })
    }

    /// Has a new directory of the bundle's be bound at `/NAME`, for reading and writing.
    fn share(&self, name: &str) -> PathBuf {
        let source = self.dir.join(name);
        fs::create_dir(&source).unwrap();
        let mut config: Value = serde_json::from_str(&self.read("config.json")).unwrap();
        let mount = json!({"destination": format!("/{name}"), "type": "bind", "source": source, "options": ["rbind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
        fs::write(self.dir.join("config.json"), config.to_string()).unwrap();
        source
    }

    /// `vc` with its states in the runtime directory, as root of the whole host has it.
    pub(crate) fn vc(&self, arguments: &[&str]) -> Command {
        let mut command = self.bench.program();
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    fn root(&self) -> PathBuf {
        self.bench.leftovers.runtime_dir().join("state")
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        self.vc(arguments).output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_code(&output, 0);
        text(&output.stdout)
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], why: &str) {
        self.refused_with(1, arguments, why);
    }

    #[track_caller]
    fn refused_with(&self, code: i32, arguments: &[&str], why: &str) {
        let output = self.run(arguments);
        assert_code(&output, code);
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.lines().count() == 1, "{why:?} is not in {said:?}");
    }

    /// Creates the container `c` with its outputs in the files `out` and `err`; gives the pid of its owner.
    #[track_caller]
    fn create(&self, more: &[&str]) -> Pid {
        let file = |name| File::create(self.dir.join(name)).unwrap();
        let pid_file = self.dir.join("pid");
        let mut create = self.vc(&["create", "--bundle"]);
        create.arg(&self.dir).arg("--pid-file").arg(&pid_file).args(more).arg("c");
        let created = create.stdout(file("out")).stderr(file("err")).status().unwrap();
        assert!(created.success(), "{created}: {}", self.read("err"));
        Pid::from_raw(fs::read_to_string(pid_file).unwrap().parse().unwrap())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.succeed(&["state", "c"])).unwrap()
    }

    /// Waits until the file has this text.
    #[track_caller]
    fn until(&self, name: &str, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.read(name).contains(text) {
            assert!(Instant::now() < deadline, "{name} has {:?}, not {text:?}", self.read(name));
            std::thread::yield_now();
        }
    }

    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.root()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        fs::remove_dir(self.root()).unwrap();
        self.bench.leftovers.assert_none();
    }
}

/// Puts what it gets on its standard input behind what is in the file.
fn hook(file: &Path, name: &str) -> Value {
    let script = format!("echo {name} >>{0}; /bin/cat >>{0}; echo >>{0}", file.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

/// The exit code of a process that another program left to this one.
fn exit_code(pid: Pid) -> Option<i32> {
    match waitpid(pid, None).unwrap() {
        WaitStatus::Exited(_, code) => Some(code),
        _ => None,
    }
}

#[test]
fn a_whole_life_as_a_monitor_sees_it() {
    let Some(bench) = Bench::new() else { return };
    let script = "echo out; echo err >&2; trap 'echo over; exit 42' TERM; while :; do sleep 1; done";
    let process =
        json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let told = bench.layers.path().join("hooks");
    let hooks = json!({
        "createRuntime": hook(&told, "createRuntime"),
        "poststart": hook(&told, "poststart"),
        "poststop": hook(&told, "poststop"),
    });
    let Some(bundle) = Bundle::new(&bench, &process, &hooks) else { return };
    // What conmon is: whose parent is gone becomes its child.
    set_child_subreaper(true).unwrap();

    let owner = bundle.create(&[]);
    let state = bundle.state();
    let expected = json!({
        "ociVersion": "1.0.2", "id": "c", "pid": owner.as_raw(), "status": "created", "bundle": bundle.dir,
        "rootfs": bundle.dir.join("rootfs"), "created": state["created"],
        "annotations": {"org.example.color": "green"},
    });
    assert_eq!(state, expected);
    assert_eq!(bundle.read("out"), "", "it does not run yet");

    bundle.succeed(&["start", "c"]);
    bundle.until("out", "out\n");
    bundle.until("err", "err\n");
    assert_eq!(bundle.state()["status"], "running");
    let listed = bundle.succeed(&["list"]);
    assert!(listed.lines().nth(1).unwrap().starts_with("c    "), "{listed}");
    assert_eq!(bundle.succeed(&["list", "-q"]), "c\n");

    bundle.succeed(&["kill", "c", "SIGTERM"]);
    assert_eq!(exit_code(owner), Some(42), "the monitor is told the container's exit code");
    assert_eq!(bundle.read("out"), "out\nover\n");
    let state = bundle.state();
    assert_eq!(
        (&state["status"], &state["pid"], &state["exitCode"]),
        (&json!("stopped"), &json!(0), &json!(42))
    );
    assert_eq!(bench.leftovers.qemu(), None, "with the owner the machine is gone");

    bundle.succeed(&["delete", "c"]);
    bundle.refused(&["state", "c"], "container c does not exist");
    let told = fs::read_to_string(told).unwrap();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!([lines[0], lines[2], lines[4]], ["createRuntime", "poststart", "poststop"], "{told}");
    for (line, status) in [(1, "creating"), (3, "running"), (5, "stopped")] {
        let state: Value = serde_json::from_str(lines[line]).unwrap();
        assert_eq!((&state["id"], &state["status"]), (&json!("c"), &json!(status)));
    }
    bundle.assert_nothing_left();
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let Some(bench) = Bench::new() else { return };
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo \"<$line>\"; \
                  trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 1; done";
    let process = json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "terminal": true,
        "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    bundle.refused(&["create", "-b", bundle.dir.to_str().unwrap(), "c"], "--console-socket");
    set_child_subreaper(true).unwrap();
    let socket = bundle.dir.join("console");
    let master = receive_master(&socket);
    let owner = bundle.create(&["--console-socket", socket.to_str().unwrap()]);
    let mut terminal = File::from(master.join().unwrap());
    bundle.succeed(&["start", "c"]);
    let mut said = String::new();
    read_until(&mut terminal, &mut said, "terminal\r\n");
    terminal.write_all(b"typed\r").unwrap();
    // The guest's terminal echoes what is typed; the one here must not do so again.
    read_until(&mut terminal, &mut said, "<typed>\r\nready\r\n");
    assert_eq!(said, "terminal\r\ntyped\r\n<typed>\r\nready\r\n");
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    read_until(&mut terminal, &mut said, "33 101\r\n");
    assert_eq!(exit_code(owner), Some(5));
    bundle.succeed(&["delete", "c"]);
    bundle.assert_nothing_left();
}

/// As runc's `run`: the container has a name that other commands know, and is gone with its process.
#[test]
fn a_container_is_run_by_its_name() {
    let Some(bench) = Bench::new() else { return };
    let script = "read line; echo \"<$line>\"; echo err >&2; trap 'echo over; exit 42' TERM; while :; do sleep 1; done";
    let process =
        json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let file = |name| File::create(bundle.dir.join(name)).unwrap();
    let mut run = bundle.vc(&["run", "--bundle"]);
    run.arg(&bundle.dir).arg("c").stdin(Stdio::piped()).stdout(file("out")).stderr(file("err"));
    let mut run = run.spawn().unwrap();
    run.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    bundle.until("out", "<typed>\n");
    bundle.until("err", "err\n");
    assert_eq!(bundle.state()["status"], "running");
    let dir = bundle.dir.to_str().unwrap();
    bundle.refused(&["run", "-b", dir, "c"], "exists already");
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(42), "{}", bundle.read("err"));
    assert_eq!(bundle.read("out"), "<typed>\nover\n");
    bundle.refused(&["state", "c"], "container c does not exist");
    bundle.assert_nothing_left();
}

#[test]
fn a_container_that_is_left_behind_is_run_and_not_waited_for() {
    let Some(bench) = Bench::new() else { return };
    let process =
        json!({"args": ["sleep", "600"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    set_child_subreaper(true).unwrap();
    let pid_file = bundle.dir.join("pid");
    let mut run = bundle.vc(&["run", "-d", "-b"]);
    run.arg(&bundle.dir).arg("--pid-file").arg(&pid_file).arg("c");
    // Its streams are the container's, which would keep a pipe open.
    let run =
        run.stdout(Stdio::null()).stderr(File::create(bundle.dir.join("err")).unwrap()).status().unwrap();
    assert!(run.success(), "{run}: {}", bundle.read("err"));
    let owner: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!(bundle.state()["status"], "running");
    bundle.succeed(&["kill", "c", "KILL"]);
    assert_eq!(exit_code(Pid::from_raw(owner)), Some(137));
    bundle.succeed(&["delete", "c"]);
    bundle.assert_nothing_left();
}

#[test]
fn a_container_that_is_run_by_its_name_has_the_callers_terminal() {
    let Some(bench) = Bench::new() else { return };
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo \"<$line>\"; exit 5";
    let process = json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "terminal": true,
        "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let mut run = bundle.vc(&["run", "--bundle"]);
    run.arg(&bundle.dir).arg("c");
    let output = feed(run, b"typed\r");
    assert_code(&output, 5);
    let said = text(&output.stdout);
    assert!(said.contains("terminal\r\n") && said.ends_with("<typed>\r\n"), "{said:?}");
    bundle.assert_nothing_left();
}

#[test]
fn commands_reach_a_container_that_runs() {
    let Some(bench) = Bench::new() else { return };
    let process = json!({"args": ["sleep", "600"], "env": ["PATH=/bin", "A=1"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    set_child_subreaper(true).unwrap();
    let owner = bundle.create(&[]);
    bundle.refused_with(255, &["exec", "c", "true"], "created");
    // As an engine has it that does not wait for the first any longer.
    let start = |_| bundle.vc(&["start", "c"]).stderr(Stdio::piped()).spawn().unwrap();
    let starts: Vec<_> = (0..3).map(start).collect();
    let started = starts.into_iter().map(|start| start.wait_with_output().unwrap());
    let (started, refused): (Vec<_>, Vec<_>) = started.partition(|output| output.status.success());
    assert_eq!(started.len(), 1);
    assert!(refused.iter().all(|output| text(&output.stderr).contains("has been started")), "{refused:?}");

    let script = "cat; echo err >&2; echo $A $B $(pwd) $(id -u); exit 7";
    let exec = ["exec", "-e", "B=2", "--cwd", "/etc", "-u", "5", "c", "sh", "-c", script];
    let output = crate::run::feed(bundle.vc(&exec), b"in\n");
    assert_code(&output, 7);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("in\n1 2 /etc 5\n".into(), "err\n".into()));
    bundle.refused_with(255, &["exec", "c", "frobnicate"], "executable file not found");

    let leaves = bundle.succeed(&["exec", "c", "sh", "-c", "sleep 603 & echo left"]);
    assert_eq!(leaves, "left\n", "what a process leaves behind does not hold its end up");

    // As conmon calls it.
    let file = bundle.dir.join("process.json");
    let attended = |script: &str, output: &str| {
        let process = json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        fs::write(&file, process.to_string()).unwrap();
        let pid_file = bundle.dir.join("exec-pid");
        let mut command =
            bundle.vc(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "--process"]);
        let output = File::create(bundle.dir.join(output)).unwrap();
        assert!(command.arg(&file).arg("c").stdout(output).status().unwrap().success());
        Pid::from_raw(fs::read_to_string(pid_file).unwrap().parse().unwrap())
    };
    let first = attended("echo up; trap 'exit 33' TERM; while :; do sleep 1; done", "first");
    bundle.until("first", "up\n");
    let second = attended("echo up; exec sleep 601", "second");
    bundle.until("second", "up\n");
    assert_eq!(bundle.succeed(&["ps", "--format", "json", "c"]), format!("[{owner}]\n"));
    let listed = bundle.succeed(&["ps", "c"]);
    assert!(listed.contains("sleep 600") && listed.contains("sleep 601"), "{listed}");
    kill(first, Signal::SIGTERM).unwrap();
    assert_eq!(exit_code(first), Some(33), "a signal goes to the process, and its exit code comes back");
    kill(second, Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(second), None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while bundle.succeed(&["ps", "c"]).contains("sleep 601") {
        assert!(Instant::now() < deadline, "a process lives on whose attendant was killed");
    }

    bundle.succeed(&["update", "--pids-limit", "50", "c"]);
    for command in [&["events", "--stats", "c"][..], &["stats", "c"]] {
        let event: Value = serde_json::from_str(&bundle.succeed(command)).unwrap();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("c")));
        assert_eq!(event["data"]["pids"]["limit"], 50, "{event}");
        assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
    }
    bundle.refused(&["update", "c"], "no limit is given");

    bundle.succeed(&["pause", "c"]);
    assert_eq!(bundle.state()["status"], "paused");
    bundle.refused_with(255, &["exec", "c", "true"], "paused");
    bundle.succeed(&["resume", "c"]);

    let absent = bundle.dir.join("absent/pid");
    let absent = ["--pid-file", absent.to_str().unwrap()];
    bundle.refused_with(
        255,
        &[&["exec", "--detach"], &absent[..], &["c", "sleep", "604"]].concat(),
        "absent/pid",
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    while bundle.succeed(&["ps", "c"]).contains("sleep 604") {
        assert!(Instant::now() < deadline, "a process lives on whose pid nobody was told");
    }

    let attending = attended("echo up; sleep 602", "third");
    bundle.until("third", "up\n");
    bundle.succeed(&["kill", "c", "KILL"]);
    assert_eq!(exit_code(owner), Some(137));
    assert_eq!(exit_code(attending), Some(137), "what was executed ends with the container");
    bundle.refused(&["events", "--stats", "c"], "stopped");
    bundle.refused(&["stats", "c"], "stopped");
    bundle.succeed(&["delete", "c"]);
    bundle.assert_nothing_left();
}

/// A CSI driver leaves a disk to the runtime, extends it on the host while a container uses it, and asks for that.
#[test]
fn a_volume_of_a_csi_driver_grows_under_a_container() {
    let Some(bench) = Bench::new() else { return };
    let process =
        json!({"args": ["sleep", "600"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let source = bundle.share("csi");
    let path = source.to_str().unwrap();
    let image = crate::volumes::ext4(&bench, "csi.img", &source);
    // QEMU is told of a device what it must not be of a file: no size but its own.
    let device = crate::volumes::Loop::of(&image);
    let info = json!({"volume-type": "block", "device": device.0, "fstype": "ext4", "options": ["rw"]});
    bundle.succeed(&["direct-volume", "add", "--volume-path", path, "--mount-info", &info.to_string()]);
    set_child_subreaper(true).unwrap();
    let owner = bundle.create(&[]);
    bundle.succeed(&["start", "c"]);
    let total = || -> u64 {
        let stats: Value =
            serde_json::from_str(&bundle.succeed(&["direct-volume", "stats", "--volume-path", path]))
                .unwrap();
        assert_eq!(
            (&stats["usage"][0]["unit"], &stats["usage"][1]["unit"]),
            (&json!(1), &json!(2)),
            "{stats}"
        );
        stats["usage"][0]["total"].as_u64().unwrap()
    };
    assert!(total() < 16 << 20);
    let resize = ["direct-volume", "resize", "--volume-path", path, "--size", "33554432"];
    bundle.refused(&resize, "its disk has 16777216 bytes on the host");
    File::options().write(true).open(&image).unwrap().set_len(32 << 20).unwrap();
    device.grow();
    bundle.succeed(&resize);
    assert!(total() > 24 << 20);
    // What the guest believes of the disk itself.
    let seen = bundle.succeed(&["exec", "c", "sh", "-c", "df -k /csi | tail -n1; cat /proc/partitions"]);
    assert!(seen.lines().any(|line| line.split_whitespace().nth(2) == Some("32768")), "{seen}");
    bundle.succeed(&["kill", "c", "KILL"]);
    assert_eq!(exit_code(owner), Some(137));
    bundle.refused(&["direct-volume", "stats", "--volume-path", path], "no container uses the volume");
    bundle.succeed(&["direct-volume", "remove", "--volume-path", path]);
    crate::volumes::remove_unused_store();
    bundle.succeed(&["delete", "c"]);
    bundle.assert_nothing_left();
}

/// What is shared for reading and writing survives that, as it is.
#[test]
fn a_killed_owner_is_told_of_and_leaves_nothing_when_deleted() {
    let Some(bench) = Bench::new() else { return };
    let script = "cat /data/of-the-host > /data/of-the-guest; exec sleep 600";
    let process =
        json!({"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let source = bundle.share("data");
    fs::write(source.join("of-the-host"), "kept\n").unwrap();
    set_child_subreaper(true).unwrap();
    let owner = bundle.create(&[]);
    bundle.succeed(&["start", "c"]);
    bundle.until("data/of-the-guest", "kept\n");
    bundle.refused(&["delete", "c"], "not stopped: running");
    kill(owner, Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(owner), None);
    let state = bundle.state();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    assert!(state["problem"].as_str().unwrap().contains("owner died"), "{state}");
    assert!(bundle.succeed(&["list"]).contains("stopped (owner died)"));
    bundle.refused(&["kill", "c"], "container not running");
    bundle.succeed(&["delete", "--force", "c"]);
    bundle.assert_nothing_left();
    assert_eq!(fs::read_dir(&source).unwrap().count(), 2);
    assert_eq!(bundle.read("data/of-the-host"), "kept\n");
}

#[test]
fn what_a_killed_owner_left_is_found_and_removed() {
    let Some(bench) = Bench::new() else { return };
    let process =
        json!({"args": ["sleep", "600"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    bundle.share("data");
    set_child_subreaper(true).unwrap();
    let owner = bundle.create(&[]);
    bundle.succeed(&["start", "c"]);
    assert_eq!(bundle.succeed(&["recover"]), "", "what runs is left alone");
    assert_eq!(bundle.state()["status"], "running");
    kill(owner, Signal::SIGKILL).unwrap();
    assert_eq!(exit_code(owner), None);
    assert_eq!(bundle.succeed(&["recover"]), "c\n");
    assert_eq!(bundle.succeed(&["recover"]), "");
    bundle.assert_nothing_left();
}

#[test]
fn a_creation_that_fails_leaves_nothing_and_says_why_where_engines_look() {
    let Some(bench) = Bench::new() else { return };
    let process =
        json!({"args": ["frobnicate"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let told = bench.layers.path().join("hooks");
    let hooks = json!({"poststop": hook(&told, "poststop")});
    let Some(bundle) = Bundle::new(&bench, &process, &hooks) else { return };
    let log = bundle.dir.join("log");
    let mut create = bundle.vc(&["--log", log.to_str().unwrap(), "--log-format", "json", "create", "-b"]);
    let output = create.arg(&bundle.dir).arg("c").output().unwrap();
    // The command may be looked for at the creation or at the start; this guest does it at the creation.
    assert_code(&output, 1);
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    let said = line["msg"].as_str().unwrap();
    assert!(said.contains("executable file not found") && said.contains("frobnicate"), "{said}");
    assert!(fs::read_to_string(told).unwrap().starts_with("poststop\n"));
    bundle.assert_nothing_left();
}

#[test]
fn a_container_whose_pid_nobody_is_told_is_none() {
    let Some(bench) = Bench::new() else { return };
    let process = json!({"args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    let (dir, file) = (bundle.dir.to_str().unwrap(), bundle.dir.join("absent/pid"));
    let pid_file = ["--pid-file", file.to_str().unwrap()];
    for command in ["create", "run"] {
        bundle.refused(&[&[command, "--bundle", dir], &pid_file[..], &["c"]].concat(), "absent/pid");
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_creator_that_goes_away_takes_the_creation_along() {
    let Some(bench) = Bench::new() else { return };
    let process = json!({"args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let Some(bundle) = Bundle::new(&bench, &process, &json!({})) else { return };
    set_child_subreaper(true).unwrap();
    let mut create = bundle.vc(&["create", "-b"]);
    let mut creator = create.arg(&bundle.dir).arg("c").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while bench.leftovers.qemu().is_none() {
        assert!(Instant::now() < deadline, "QEMU did not start");
    }
    creator.kill().unwrap();
    creator.wait().unwrap();
    // Only the owner is left to this process.
    let ended = waitpid(None, None).unwrap();
    assert!(matches!(ended, WaitStatus::Exited(_, 125)), "{ended:?}");
    bundle.assert_nothing_left();
}

/// Waits for the one who sends a terminal, in a thread.
fn receive_master(socket: &Path) -> JoinHandle<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        let mut parts = [std::io::IoSliceMut::new(&mut name)];
        recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert!(name.starts_with(b"/dev/pts/"), "{name:?}");
        let files = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        files.unwrap()
    })
}

/// Reads until `said` ends with `end`.
#[track_caller]
fn read_until(terminal: &mut File, said: &mut String, end: &str) {
    let mut buffer = [0; 256];
    while !said.ends_with(end) {
        let read = terminal.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {said:?}"));
        said.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}
