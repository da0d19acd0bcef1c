//! The owner of a real sandbox is killed, and another takes over: nothing is lost, nothing is left.
//!
//! This program is the owner too: it runs itself again, with a variable that says where.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{MountBuilder, Process, Spec, SpecBuilder};
use vc_agent::{Connector, ExitStatus};
use vc_container::{
    Container, ContainerSpec, ContainerStorage, Recovered, Sandbox, SandboxSpec, State, Stream, Timing,
    storage_request,
};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_storage::{LayerSource, MountPolicy, Rootfs, Surroundings, Upper};
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{ContainerId, HostPath};

/// Where the owner keeps its sandbox, and what its layer is.
const DIR: &str = "VC_TEST_OWNER_DIR";
const LAYER: &str = "VC_TEST_OWNER_LAYER";

/// Ample for a busy machine under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

fn host_path(path: impl AsRef<Path>) -> HostPath {
    HostPath::new(path.as_ref()).unwrap()
}

fn sandbox_spec(dir: &Path) -> SandboxSpec {
    let image = GuestImage::find().unwrap();
    let (kernel, initrd) = (host_path(&image.kernel), host_path(&image.initrd));
    let mut machine = MachineSpec::new("box".parse().unwrap(), kernel, initrd, host_path(dir.join("box")));
    machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
    SandboxSpec { state_dir: Some(host_path(dir.join("state"))), ..SandboxSpec::new(machine) }
}

fn process(script: &str) -> Process {
    let mut process = Process::default();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).into()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    process
}

fn shell(script: &str) -> Spec {
    let mut spec = SpecBuilder::default().build().unwrap();
    spec.set_process(Some(process(script)));
    spec
}

/// A directory of the host that every container has at `/data`, where this user can share one.
fn source(layer: &Path) -> PathBuf {
    layer.with_file_name("source")
}

async fn started(sandbox: &Sandbox, name: &str, script: &str, layer: &Path) -> Container {
    let (id, mut oci): (ContainerId, _) = (name.parse().unwrap(), shell(script));
    if source(layer).exists() {
        let options = Some(vec!["rbind".to_owned(), "rw".to_owned()]);
        let data = MountBuilder::default().destination("/data").typ("bind").source(source(layer));
        let mut data = data.build().unwrap();
        data.set_options(options);
        oci.set_mounts(Some(vec![data]));
    }
    let image = LayerSource::Image { image: host_path(layer), devices: Vec::new(), verity: None };
    let upper = Upper::Memory { unused: None };
    let rootfs = Rootfs::Layers(vc_storage::Layers { layers: vec![image], upper, options: Vec::new() });
    let request = storage_request(id.clone(), rootfs, &oci).unwrap();
    let storage =
        ContainerStorage::prepare(&request, MountPolicy::new(true), &Surroundings::default()).unwrap();
    let container = sandbox.create_container(id, ContainerSpec { oci, storage }).await.unwrap();
    container.start().await.unwrap();
    container
}

/// Not a test of its own: the owner that the tests below kill. It says how far it is.
#[tokio::test]
async fn owner() {
    let (Some(dir), Some(layer)) = (std::env::var_os(DIR), std::env::var_os(LAYER)) else { return };
    let (dir, layer) = (PathBuf::from(dir), PathBuf::from(layer));
    let spec = sandbox_spec(&dir);
    let sandbox = Sandbox::create(&Qemu::default(), &Connector::default(), spec).await.unwrap();
    let web = started(&sandbox, "web", "echo up; exec sleep 600", &layer).await;
    let quick = started(&sandbox, "quick", "read line; exit 7", &layer).await;
    web.exec("job".parse().unwrap(), process("sleep 1; exit 5")).await.unwrap();
    println!("ready");
    quick.close_stdin().await.unwrap();
    for round in 0.. {
        let short = started(&sandbox, "short", "exit 3", &layer).await;
        short.wait().await.unwrap();
        short.stop().await.unwrap();
        short.delete().await.unwrap();
        println!("round {round}");
    }
}

struct Bench {
    leftovers: Leftovers,
    layer: PathBuf,
    _layers: Layers,
}

impl Bench {
    fn new() -> Option<Self> {
        GuestImage::find()?;
        let layers = Layers::new();
        let layer = layers.busybox();
        if vc_tests::root() {
            std::fs::create_dir(source(&layer)).unwrap();
            std::fs::write(source(&layer).join("of-the-host"), "kept\n").unwrap();
        }
        Some(Self { leftovers: Leftovers::new(), layer, _layers: layers })
    }

    fn dir(&self) -> &Path {
        self.leftovers.runtime_dir()
    }

    /// Nothing is left, and what was shared is as it was.
    fn assert_none(&self) {
        self.leftovers.assert_none();
        if source(&self.layer).exists() {
            assert_eq!(std::fs::read_to_string(source(&self.layer).join("of-the-host")).unwrap(), "kept\n");
        }
    }

    /// Another process that owns a sandbox, and the lines that it prints.
    fn owner(&self) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner", "--nocapture"])
            .env(DIR, self.dir())
            .env(LAYER, &self.layer)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    }

    async fn recover(&self) -> Recovered {
        let state = host_path(self.dir().join("state"));
        Sandbox::recover(&Qemu::default(), &Connector::at_once(), &state, Timing::default()).await.unwrap()
    }
}

fn kill(mut owner: Child) {
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[tokio::test]
async fn a_killed_owner_loses_no_container_no_process_and_no_exit_status() {
    let Some(bench) = Bench::new() else { return };
    let (owner, mut lines) = bench.owner();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the owner ended");
    kill(owner);
    let Recovered::Resumed(sandbox) = bench.recover().await else { panic!("the machine lives") };
    let container = |name: &str| sandbox.container(&name.parse().unwrap()).unwrap();
    let (web, quick) = (container("web"), container("quick"));
    assert_eq!(web.status().unwrap().state, State::Running);
    assert_eq!(web.read(Stream::Stdout, 100).await.unwrap(), b"up\n");
    let job = web.process("job".parse().unwrap()).await.unwrap();
    assert_eq!(job.wait().await.unwrap(), ExitStatus(5));
    quick.close_stdin().await.unwrap();
    assert_eq!(quick.wait().await.unwrap(), ExitStatus(7));
    let beside = web.exec("beside".parse().unwrap(), process("exit 6")).await.unwrap();
    assert_eq!(beside.wait().await.unwrap(), ExitStatus(6));
    if source(&bench.layer).exists() {
        let script = "cat /data/of-the-host > /data/of-the-guest";
        let writes = web.exec("writes".parse().unwrap(), process(script)).await.unwrap();
        assert_eq!(writes.wait().await.unwrap(), ExitStatus(0));
        let written = std::fs::read_to_string(source(&bench.layer).join("of-the-guest"));
        assert_eq!(written.unwrap(), "kept\n");
    }
    // Its disk, and what is shared, it has in common with those that were there before.
    let script = "[ ! -e /data ] || cmp /data/of-the-host /data/of-the-guest && exit 4";
    let next = started(&sandbox, "next", script, &bench.layer).await;
    assert_eq!(next.wait().await.unwrap(), ExitStatus(4));
    for id in sandbox.status().containers.into_keys() {
        let container = sandbox.container(&id).unwrap();
        let left = container.stop().await.unwrap();
        assert!(left.is_empty(), "{id}: {left:?}");
        container.delete().await.unwrap();
    }
    // All ports are free again, the disk's too: it was unplugged with the last of them.
    let last = started(&sandbox, "last", "exit 2", &bench.layer).await;
    assert_eq!(last.wait().await.unwrap(), ExitStatus(2));
    sandbox.stop().await.unwrap();
    bench.assert_none();
}

/// When the owner is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// As soon as there is a record.
    Record,
    /// As soon as QEMU runs.
    Qemu,
    /// So many lines after the first, and a moment that differs from time to time.
    Lines(usize),
}

#[tokio::test]
async fn an_owner_that_is_killed_at_any_moment_leaves_what_can_be_taken_over_or_cleaned_up() {
    let Some(bench) = Bench::new() else { return };
    let moments = [Moment::Record, Moment::Qemu, Moment::Lines(1), Moment::Lines(2)];
    let times = std::env::var("VC_SOAK").map_or(moments.len(), |times| times.parse().unwrap());
    for (round, moment) in (0..times).zip(moments.into_iter().cycle()) {
        let (owner, mut lines) = bench.owner();
        let began = Instant::now();
        let wait_for = |there: &dyn Fn() -> bool| {
            while !there() {
                assert!(began.elapsed() < PATIENCE, "{moment:?} does not come");
                std::thread::yield_now();
            }
        };
        match moment {
            Moment::Record => wait_for(&|| bench.dir().join("state/record.json").exists()),
            Moment::Qemu => wait_for(&|| bench.leftovers.qemu().is_some()),
            Moment::Lines(count) => {
                assert!(lines.any(|line| line.unwrap() == "ready"), "the owner ended");
                (1..count).for_each(|_| drop(lines.next()));
                let late = Instant::now() + Duration::from_millis(u64::try_from(round * 137 % 700).unwrap());
                wait_for(&|| Instant::now() > late);
            }
        }
        kill(owner);
        match bench.recover().await {
            Recovered::Resumed(sandbox) => {
                let web = sandbox.container(&"web".parse().unwrap());
                if let Moment::Lines(_) = moment {
                    assert_eq!(web.unwrap().status().unwrap().state, State::Running);
                }
                for id in sandbox.status().containers.into_keys() {
                    let left = sandbox.container(&id).unwrap().stop().await.unwrap();
                    assert!(left.is_empty(), "round {round}, {moment:?}, {id}: {left:?}");
                }
                sandbox.stop().await.unwrap();
            }
            Recovered::CleanedUp(up) => {
                assert!(up.left.is_empty(), "round {round}, {moment:?}: {up:?}");
                assert!(!matches!(moment, Moment::Lines(_)), "it could have gone on: {up:?}");
            }
        }
        bench.assert_none();
    }
}
