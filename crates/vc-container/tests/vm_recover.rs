//! The owner of a real sandbox is killed, and another takes over: nothing is lost, nothing is left.
//!
//! This program is the owner too: it runs itself again, with a variable that says where.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::MountBuilder;
use vc_agent::{Connector, ExitStatus};
use vc_container::{
    Container, ContainerSpec, ContainerStorage, Recovered, Sandbox, SandboxSpec, State, StoreError, Stream,
    Timing, storage_request,
};
use vc_hypervisor::MachineSpec;
use vc_qemu::Qemu;
use vc_storage::{LayerSource, MountPolicy, Rootfs, SharedFs, Surroundings, Upper};
use vc_tests::{GuestImage, Layers, Leftovers, shell, shell_process, soak};
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
        ContainerStorage::prepare(&request, MountPolicy::new(SharedFs::VirtioFs), &Surroundings::default())
            .unwrap();
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
    web.exec("job".parse().unwrap(), shell_process("sleep 1; exit 5")).await.unwrap();
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
        self.try_recover().await.unwrap()
    }

    async fn try_recover(&self) -> Result<Recovered, StoreError> {
        let state = host_path(self.dir().join("state"));
        Sandbox::recover(&Qemu::default(), &Connector::at_once(), &state, Timing::default()).await
    }
}

/// Waits until an owner is busy.
fn await_busy(lines: &mut Lines<BufReader<ChildStdout>>) {
    // On a host with one processor its first line begins with the name of its test.
    assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the owner ended");
}

fn kill(mut owner: Child) {
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[tokio::test]
async fn a_killed_owner_loses_no_container_no_process_and_no_exit_status() {
    let Some(bench) = Bench::new() else { return };
    let (owner, mut lines) = bench.owner();
    await_busy(&mut lines);
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
    let beside = web.exec("beside".parse().unwrap(), shell_process("exit 6")).await.unwrap();
    assert_eq!(beside.wait().await.unwrap(), ExitStatus(6));
    if source(&bench.layer).exists() {
        let script = "cat /data/of-the-host > /data/of-the-guest";
        let writes = web.exec("writes".parse().unwrap(), shell_process(script)).await.unwrap();
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
    /// After the record has been written so many times.
    Write(usize),
    /// So long after its start.
    Start(Duration),
    /// So long after it has said that it is busy.
    Busy(Duration),
}

/// The moments that are met in each run; the first write is the first moment.
const MOMENTS: [Moment; 4] =
    [Moment::Record, Moment::Qemu, Moment::Busy(Duration::ZERO), Moment::Busy(Duration::from_millis(411))];

/// How often a record is written until its owner does nothing new.
const WRITES: usize = 16;

/// The moments of a run: first those that are always met, then each write of the record, then any.
fn moment(round: usize, seed: u64) -> Moment {
    let random = |end| Duration::from_millis(soak::random(seed, round as u64, end));
    match round {
        0..4 => MOMENTS[round],
        round if round < MOMENTS.len() + WRITES && seed == 0 => Moment::Write(round - MOMENTS.len() + 2),
        round if round % 4 == 0 => Moment::Start(random(4000)),
        _ => Moment::Busy(random(3000)),
    }
}

/// Returns when the record has been written so many times, as far as that can be seen from outside.
fn see_writes(record: &Path, count: usize, patience: &dyn Fn()) {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        patience();
        // Each write replaces the file; the time tells a number from its last use.
        seen.extend(record.metadata().map(|file| (file.ino(), file.mtime(), file.mtime_nsec())));
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn an_owner_that_is_killed_at_any_moment_leaves_what_can_be_taken_over_or_cleaned_up() {
    let Some(bench) = Bench::new() else { return };
    let (times, seed) = (soak::times(MOMENTS.len()), soak::seed());
    let (mut resumed, mut cleaned_up) = (0, 0);
    for round in 0..times {
        let moment = moment(round, seed);
        let (owner, mut lines) = bench.owner();
        let began = Instant::now();
        let patience = || assert!(began.elapsed() < PATIENCE, "{moment:?} does not come");
        let wait_for = |there: &dyn Fn() -> bool| {
            while !there() {
                patience();
                std::thread::yield_now();
            }
        };
        let record = bench.dir().join("state/record.json");
        match moment {
            Moment::Record => wait_for(&|| record.exists()),
            Moment::Qemu => wait_for(&|| bench.leftovers.qemu().is_some()),
            Moment::Write(count) => see_writes(&record, count, &patience),
            Moment::Start(late) => wait_for(&|| began.elapsed() >= late),
            Moment::Busy(late) => {
                await_busy(&mut lines);
                let ready = Instant::now();
                wait_for(&|| ready.elapsed() >= late);
            }
        }
        kill(owner);
        let when = format!("seed {seed}, round {round}, {moment:?}");
        let was_busy = matches!(moment, Moment::Busy(_));
        if !record.exists() {
            // It had not even begun.
            let found = bench.try_recover().await;
            assert!(matches!(found, Err(StoreError::NoRecord(_))), "{when}: {found:?}");
            bench.assert_none();
            continue;
        }
        match bench.recover().await {
            Recovered::Resumed(sandbox) => {
                resumed += 1;
                if was_busy {
                    assert_nothing_is_lost(&sandbox, &when).await;
                }
                for id in sandbox.status().containers.into_keys() {
                    let left = sandbox.container(&id).unwrap().stop().await.unwrap();
                    assert!(left.is_empty(), "{when}, {id}: {left:?}");
                }
                sandbox.stop().await.unwrap();
            }
            Recovered::CleanedUp(up) => {
                cleaned_up += 1;
                assert!(up.left.is_empty(), "{when}: {up:?}");
                assert!(!was_busy, "{when}: it could have gone on: {up:?}");
            }
        }
        println!("{when}: {:.1?}", began.elapsed());
        bench.assert_none();
    }
    let early = times - resumed - cleaned_up;
    println!(
        "seed {seed}: {times} moments, {resumed} times resumed, {cleaned_up} times cleaned up, {early} before it began"
    );
}

/// What the owner had begun before it was busy goes on, and how it ends is told.
async fn assert_nothing_is_lost(sandbox: &Sandbox, when: &str) {
    let container = |name: &str| sandbox.container(&name.parse().unwrap()).unwrap();
    let (web, quick) = (container("web"), container("quick"));
    assert_eq!(web.status().unwrap().state, State::Running, "{when}");
    let job = web.process("job".parse().unwrap()).await.unwrap();
    assert_eq!(job.wait().await.unwrap(), ExitStatus(5), "{when}");
    // The owner may have died before it could. Of a process that has ended, there is nothing to close.
    drop(quick.close_stdin().await);
    assert_eq!(quick.wait().await.unwrap(), ExitStatus(7), "{when}");
}
