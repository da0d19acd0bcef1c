//! Roots that nydusd serves: its process is real, its API the double's. The directory that it serves takes root.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "life/bench.rs"]
mod bench;

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use oci_spec::runtime::Spec;
use tokio::sync::Semaphore;
use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_container::{
    Cause, Container, ContainerSpec, ContainerStorage, OperationError, Recovered, Sandbox, Sharing, Step,
    storage_request,
};
use vc_hypervisor::fake::FakeHypervisor;
use vc_share::nydus::fake::{FakeNydusd, NydusFault};
use vc_storage::{MountPolicy, NydusExtra, Rootfs, SharedFs, Surroundings};
use vc_types::HostPath;

use bench::{Bench, command, id};

/// More than it takes when nothing hangs, also on a busy machine.
const CREATE: Duration = Duration::from_secs(2);

/// Held by a test as long as it runs. A process that is being started has, for a moment, all files of the one that
/// starts it, and so the lock on the record of another test.
static ALONE: Semaphore = Semaphore::const_new(1);

struct Nydus {
    bench: Bench,
    fake: FakeNydusd,
}

impl Nydus {
    fn new() -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let mut bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
        let program = bench.path().join("nydusd");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nydus/nydusd.sh"), &program).unwrap();
        let fake = FakeNydusd::listen(&HostPath::new(bench.path().join("nydusd.api")).unwrap()).unwrap();
        fs::write(bench.path().join("bootstrap"), "").unwrap();
        fs::create_dir_all(bench.path().join("snapshot/fs")).unwrap();
        bench.spec.sharing = Sharing { shared_fs: SharedFs::Nydus, program: Some(program) };
        Some(Self { bench, fake })
    }

    fn spec(&self, oci: Spec) -> ContainerSpec {
        let path = |name| HostPath::new(self.bench.path().join(name)).unwrap();
        let rootfs = Rootfs::Nydus(NydusExtra {
            source: path("bootstrap"),
            config: "{}".into(),
            snapshot_dir: path("snapshot"),
        });
        planned(rootfs, oci, SharedFs::Nydus)
    }

    async fn create(&self, sandbox: &Sandbox) -> Result<Container, OperationError> {
        sandbox.create_container(id("web"), self.spec(command("web"))).await
    }

    /// Where nydusd has something mounted.
    fn mounted(&self) -> Vec<String> {
        self.fake.mounts().into_keys().collect()
    }

    /// Nothing is left of a container but its snapshot.
    #[track_caller]
    fn assert_no_container(&self, when: &str) {
        let plugged: Vec<_> =
            self.bench.disks().into_iter().filter(|disk| disk.as_str() != "share").collect();
        let left = self.bench.agent.left();
        assert!(plugged.is_empty() && left.containers.is_empty(), "{when}: {plugged:?}, {left:?}");
        // What is shared stays mounted, for the next one.
        assert!(left.mounts.len() <= 1, "{when}: {left:?}");
        assert!(!self.mounted().iter().any(|at| at.starts_with(RAFS)), "an image {when}");
        assert!(self.bench.path().join("snapshot/fs").exists(), "the snapshot {when}");
        let shared = fs::read_dir(self.bench.path().join("run/share/mounts"));
        assert_eq!(shared.map_or(0, Iterator::count), 0, "shares {when}");
    }

    /// Nothing is left of a sandbox, and nobody serves its directory.
    #[track_caller]
    fn assert_no_sandbox(&self, when: &str) {
        self.bench.assert_no_sandbox(when);
        let left = vc_tests::processes_naming(&self.bench.path().join("run"));
        assert!(left.is_empty(), "{when}: {left:?}");
    }
}

const RAFS: &str = "/rafs/web/lowerdir";
const SECOND: &str = "/rafs/web/lowerdir-1";

fn planned(rootfs: Rootfs, oci: Spec, shared_fs: SharedFs) -> ContainerSpec {
    let request = storage_request(id("web"), rootfs, &oci).unwrap();
    let storage = ContainerStorage::prepare(&request, MountPolicy::new(shared_fs), &Surroundings::default());
    ContainerSpec { oci, storage: storage.unwrap() }
}

#[tokio::test]
async fn an_image_is_mounted_beside_what_is_shared_and_goes_with_its_container() {
    let _alone = ALONE.acquire().await;
    let Some(nydus) = Nydus::new() else { return };
    let sandbox = nydus.bench.sandbox().await.unwrap();
    assert_eq!(nydus.fake.calls(), [""; 0], "nobody needs it yet");
    let web = nydus.create(&sandbox).await.unwrap();
    assert_eq!(nydus.mounted(), ["/containers", RAFS]);
    // Beneath what the guest mounts it is where the planner has it.
    let overlay = &nydus.spec(command("web")).storage.plan.storages[1].options;
    assert!(overlay.contains(&format!("lowerdir=/run/kata-containers/shared{RAFS}")), "{overlay:?}");
    assert!(nydus.bench.path().join("run/share/shared/web-snapshotdir/fs").exists());
    web.stop().await.unwrap();
    nydus.assert_no_container("after the stop");
    web.delete().await.unwrap();

    // As one fails in the guest.
    let missing = sandbox.create_container(id("web"), nydus.spec(command("missing"))).await.unwrap_err();
    assert!(missing.left.is_empty(), "{missing:?}");
    nydus.assert_no_container("after a creation that failed");
    nydus.create(&sandbox).await.unwrap();
    sandbox.stop().await.unwrap();
    nydus.assert_no_sandbox("at the end");
}

/// A plan that the sandbox's server cannot serve is refused before anything is done.
#[tokio::test]
async fn a_plan_for_another_server_is_refused_by_both_names() {
    let _alone = ALONE.acquire().await;
    for (planned_for, has) in [
        (SharedFs::VirtioFs, SharedFs::Nydus),
        (SharedFs::Nydus, SharedFs::VirtioFs),
        (SharedFs::Nydus, SharedFs::None),
    ] {
        let Some(mut nydus) = Nydus::new() else { return };
        let source = HostPath::new(nydus.bench.path().join("snapshot")).unwrap();
        let directory = Rootfs::Directory { source, read_only: false };
        let spec = match planned_for {
            SharedFs::Nydus => nydus.spec(command("web")),
            other => planned(directory, command("web"), other),
        };
        nydus.bench.spec.sharing.shared_fs = has;
        let sandbox = nydus.bench.sandbox().await.unwrap();
        let refused = sandbox.create_container(id("web"), spec).await.unwrap_err();
        assert_eq!(refused.step, Step::Plan(id("web")));
        let said = refused.cause.to_string();
        assert!(matches!(refused.cause, Cause::OtherSharing { .. }), "{said}");
        assert!(said.contains(&planned_for.to_string()) && said.contains(&has.to_string()), "{said}");
        sandbox.stop().await.unwrap();
        nydus.assert_no_sandbox("after a refusal");
        assert_eq!(nydus.fake.calls(), [""; 0]);
    }
}

/// A life with the `n`-th call of nydusd going wrong; false when it has fewer.
async fn life(n: u32, fault: NydusFault) -> bool {
    let when = format!("call {n}, {fault:?}");
    let mut nydus = Nydus::new().unwrap();
    nydus.bench.spec.timing.create = CREATE;
    nydus.bench.spec.timing.undo = CREATE;
    let sandbox = nydus.bench.sandbox().await.unwrap();
    nydus.fake.fail(n, fault);
    let web = match nydus.create(&sandbox).await {
        Ok(web) => web,
        Err(failed) => {
            assert!(failed.left.is_empty(), "{when}: {failed:?}");
            let is_asked = matches!(failed.step, Step::ServeShares | Step::MountImage(_));
            assert!(is_asked && matches!(failed.cause, Cause::Server(_) | Cause::Nydus(_)), "{failed:?}");
            nydus.assert_no_container(&when);
            if matches!(failed.step, Step::ServeShares) {
                // The next one is another process, which has nothing mounted.
                nydus.fake.restart();
            }
            nydus.create(&sandbox).await.unwrap_or_else(|error| panic!("again, {when}: {error:?}"))
        }
    };
    let left = web.stop().await.unwrap();
    let met = nydus.fake.heal();
    if let Some(first) = left.first() {
        assert!(matches!(first.step, Step::UnmountImage(_)), "{when}: {first:?}");
        assert!(web.stop().await.unwrap().is_empty(), "a second stop, {when}");
    }
    nydus.assert_no_container(&when);
    web.delete().await.unwrap();
    sandbox.stop().await.unwrap();
    nydus.assert_no_sandbox(&when);
    met
}

#[tokio::test]
async fn every_call_of_nydusd_may_go_wrong() {
    let _alone = ALONE.acquire().await;
    if !vc_tests::root() {
        return;
    }
    for fault in NydusFault::ALL {
        let mut met = 0;
        while life(met + 1, fault).await {
            met += 1;
        }
        assert!((4..10).contains(&met), "{fault:?} came {met} times");
    }
}

#[tokio::test]
async fn another_owner_goes_on_with_nydusd_or_ends_it() {
    let _alone = ALONE.acquire().await;
    for machine_lives in [true, false] {
        let Some(mut nydus) = Nydus::new() else { return };
        let state = HostPath::new(nydus.bench.path().join("state")).unwrap();
        nydus.bench.spec.state_dir = Some(state.clone());
        let bench = &nydus.bench;
        let recover = async || {
            let connector = FakeConnector::new(&bench.agent);
            Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap()
        };
        let sandbox = bench.sandbox().await.unwrap();
        nydus.create(&sandbox).await.unwrap();
        sandbox.leave().await;
        // One that died in the middle of a creation: the record has it, and nobody was told of it.
        let record = state.as_path().join("record.json");
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace("\"phase\": \"ready\"", "\"phase\": \"creating\"")).unwrap();
        let Recovered::Resumed(sandbox) = recover().await else { panic!("all is there") };
        nydus.assert_no_container("that nobody was told of");
        assert_eq!(nydus.mounted(), ["/containers"]);

        nydus.create(&sandbox).await.unwrap();
        sandbox.leave().await;
        if machine_lives {
            let Recovered::Resumed(sandbox) = recover().await else { panic!("all is there") };
            assert_eq!(nydus.mounted(), ["/containers", SECOND]);
            let web = sandbox.container(&id("web")).unwrap();
            assert!(web.stop().await.unwrap().is_empty());
            nydus.assert_no_container("after the other owner's stop");
            sandbox.stop().await.unwrap();
        } else {
            bench.hypervisor.crash(&bench.sandbox_id());
            let Recovered::CleanedUp(up) = recover().await else { panic!("the machine is gone") };
            assert!(up.left.is_empty(), "{up:?}");
        }
        nydus.assert_no_sandbox("after the recovery");
    }
}
