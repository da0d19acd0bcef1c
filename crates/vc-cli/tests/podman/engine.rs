//! A Podman with a storage and a runtime of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use vc_tests::{GuestImage, skip};

/// The image that every engine has.
pub(crate) const IMAGE: &str = "localhost/busybox:1";

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// How long one line may take, in seconds: a machine on a busy host under emulation.
const LINE: u32 = 240;

/// Podman, and what it is to do.
pub(crate) struct Engine {
    dir: TempDir,
    user: Option<u32>,
    /// The cgroups of containers that were there before.
    cgroups: BTreeSet<PathBuf>,
}

/// What a line of a session led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl Engine {
    /// One with `vc`; `None`, with the reason printed, where it cannot be.
    pub(crate) fn with_vc() -> Option<Self> {
        if !vc_tests::root() || !installed() {
            return None;
        }
        let guest = GuestImage::find()?;
        let engine = Self::empty();
        engine.write_runtime(Path::new(env!("CARGO_BIN_EXE_vc")), &guest.dir, &daemon());
        engine.set_up(engine.path("vc").to_str().unwrap(), "");
        Some(engine)
    }

    /// One with `vc` whose Podman is that of a user without rights.
    pub(crate) fn with_vc_of_nobody() -> Option<Self> {
        if !vc_tests::root() || !installed() {
            return None;
        }
        let guest = GuestImage::find()?;
        let mut engine = Self::empty();
        engine.user = Some(NOBODY);
        if engine.line("$AS_USER unshare --user --map-root-user --mount true").code != Some(0) {
            skip("a user without rights cannot make a user namespace here");
            return None;
        }
        // The target directory may be closed to others, so everything is copied.
        fs::create_dir(engine.path("copy")).unwrap();
        fs::create_dir(engine.path("xdg")).unwrap();
        let daemon = daemon();
        let vc = PathBuf::from(env!("CARGO_BIN_EXE_vc"));
        let copied = |from: &Path, name: &str| {
            fs::copy(from, engine.path("copy").join(name)).map(|_| engine.path("copy").join(name))
        };
        copied(&guest.kernel, "vmlinux").unwrap();
        copied(&guest.initrd, "initrd").unwrap();
        // On a host with a /dev/vhost-vsock there need not be one.
        let daemon = copied(&daemon, "vhost-device-vsock").unwrap_or(daemon);
        engine.write_runtime(&copied(&vc, "program").unwrap(), &engine.path("copy"), &daemon);
        engine.set_up(engine.path("vc").to_str().unwrap(), "");
        Some(engine)
    }

    /// Writes the script that is the runtime. Not by --runtime-flag: Podman 4.3 does not pass these on to each command.
    fn write_runtime(&self, program: &Path, guest: &Path, daemon: &Path) {
        let config = format!(
            "[hypervisor.qemu]\nguest = {guest:?}\nvsock_daemon = {daemon:?}\n[agent.kata]\ndial_timeout = 200\n"
        );
        fs::write(self.path("config.toml"), config).unwrap();
        let script = format!(
            "#!/bin/sh\nexec {} --config {} --root {} \"$@\"\n",
            program.display(),
            self.path("config.toml").display(),
            self.state().display()
        );
        write_program(&self.path("vc"), &script);
    }

    /// One with runc; `None`, with the reason printed, where runc cannot run a container.
    pub(crate) fn with_runc() -> Option<Self> {
        let Some(runc) = find("runc") else {
            skip("runc is not installed, so there is nothing to compare with");
            return None;
        };
        let engine = Self::empty();
        // Podman asks for more than its own limits, where those are low.
        engine.set_up(runc.to_str().unwrap(), "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000");
        let probe = engine.line(&format!("podman run --rm --network none {IMAGE} true 2>&1"));
        if probe.code != Some(0) {
            skip(&format!("runc cannot run containers here: {}", probe.said));
            return None;
        }
        Some(engine)
    }

    fn empty() -> Self {
        // Podman puts sockets below it, whose paths may have 107 bytes.
        let dir = tempfile::Builder::new().prefix("vp").tempdir_in("/tmp").unwrap();
        Self { dir, user: None, cgroups: cgroups() }
    }

    /// Writes the script that is `podman` for the lines, and imports the image.
    fn set_up(&self, runtime: &str, of_run: &str) {
        let dir = self.dir.path().display();
        fs::create_dir(self.path("bin")).unwrap();
        fs::create_dir(self.path("volume")).unwrap();
        let script = format!(
            "#!/bin/sh\nverb=$1; shift\ncase $verb in run|create) set -- {of_run} \"$@\";; esac\n\
             exec $AS_USER /usr/bin/podman --root {dir}/root --runroot {dir}/run --tmpdir {dir}/tmp --storage-driver vfs \
             --cgroup-manager cgroupfs --events-backend file --runtime {runtime} $verb \"$@\"\n"
        );
        write_program(&self.path("bin/podman"), &script);
        let eventually = "#!/bin/sh\nleft=300\nuntil sh -c \"$1\"; do left=$((left - 1)); [ $left -gt 0 ] || exit 1; sleep 0.1; done\n";
        write_program(&self.path("bin/eventually"), eventually);
        let tree = self.path("tree");
        for directory in ["bin", "etc", "tmp", "home", "run", "proc", "sys", "dev"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
        }
        fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy(find("busybox").expect("busybox-static is installed"), tree.join("bin/busybox")).unwrap();
        let applets = "sh cat echo id ls grep sed cut sleep stat tty hostname pwd test touch df awk head kill ps \
                       uname nproc true readlink cp env wc sort";
        for applet in applets.split_whitespace() {
            symlink("busybox", tree.join("bin").join(applet)).unwrap();
        }
        fs::write(
            tree.join("etc/passwd"),
            "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n",
        )
        .unwrap();
        fs::write(tree.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
        if let Some(user) = self.user {
            let owner = format!("{user}:{user}");
            assert!(
                Command::new("chown").arg("-R").arg(owner).arg(self.dir.path()).status().unwrap().success()
            );
        }
        let imported = self.line(&format!(
            "tar -C {0} --owner=0 --group=0 -c . | podman import -q - {IMAGE} 2>&1",
            tree.display()
        ));
        assert_eq!(imported.code, Some(0), "{}", imported.said);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where `vc` keeps its states.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A command for a line of a shell in which `podman` is this one, `eventually` waits for a line to succeed, `$D` is a
    /// directory, and `$B` the image.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(LINE.to_string()).args(["sh", "-c", line]);
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        let as_user = self.user.map(|user| {
            let home = self.dir.path().display();
            format!(
                "setpriv --reuid={user} --regid={user} --clear-groups env HOME={home} XDG_RUNTIME_DIR={home}/xdg"
            )
        });
        command.env("AS_USER", as_user.unwrap_or_default());
        command.env("D", self.dir.path()).env("B", IMAGE).env_remove("VC_GUEST").stdin(Stdio::null());
        command
    }

    /// What the line writes to standard output, with what differs between engines and runs replaced, and its code.
    pub(crate) fn line(&self, line: &str) -> Answer {
        let output = self.command(line).stderr(Stdio::inherit()).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).replace(&*self.dir.path().to_string_lossy(), "DIR");
        Answer { code: output.status.code(), said: without_ids(&said) }
    }

    /// The same; a line that fails fails the test.
    #[track_caller]
    pub(crate) fn succeed(&self, line: &str) -> String {
        let Answer { code, said } = self.line(line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    /// What runs for this engine, by number, with its command line.
    fn processes(&self) -> Vec<(Pid, String)> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let ours = |process: fs::DirEntry| {
            let pid = process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
            let line = fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // A machine is in its runtime directory, and need not name it.
            let works_in = fs::read_link(process.path().join("cwd")).unwrap_or_default();
            (line.contains(&dir) || works_in.starts_with(&dir)).then_some((pid, line))
        };
        fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(ours).collect()
    }

    /// How many machines run for this engine.
    pub(crate) fn machines(&self) -> usize {
        self.processes().iter().filter(|(_, line)| line.starts_with("qemu-system")).count()
    }

    /// Waits for what Podman still does in the background: a monitor ends with its container, as
    /// the command that removes it.
    fn wait_for_podman(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        for (pid, line) in self.processes() {
            if !line.contains("conmon") && !line.contains(" container cleanup ") {
                continue;
            }
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
            // One that goes on is told of as left.
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)).unwrap();
        }
    }

    /// What there is on the host of containers: states, processes, mounts, cgroups.
    pub(crate) fn left(&self) -> Vec<String> {
        self.wait_for_podman();
        let states = fs::read_dir(self.state()).into_iter().flatten().flatten();
        let mut left: Vec<_> = states.map(|entry| entry.path().display().to_string()).collect();
        left.extend(self.processes().into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
        left.extend(cgroups().difference(&self.cgroups).map(|cgroup| cgroup.display().to_string()));
        for id in self.line("podman ps -aq --no-trunc").said.split_whitespace() {
            left.push(format!("container {id}"));
        }
        left
    }
}

impl Drop for Engine {
    /// Whatever a failed test left.
    fn drop(&mut self) {
        let _ = self
            .command("podman rm -af -t 0; podman volume rm -af")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dir = self.dir.path().to_string_lossy().into_owned();
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&dir)) {
            let _ = nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// The cgroups that are named for a container, as Podman names them. What is above them is Podman's own.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut below = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = below.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with("libpod-") {
                found.insert(entry.path());
            }
            below.push(entry.path());
        }
    }
    found
}

/// With `ID` for every container's, which is 64 digits long or, for short, 12.
fn without_ids(text: &str) -> String {
    let is_id =
        |word: &str| matches!(word.len(), 12 | 64) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').map(|word| if is_id(word) { "ID" } else { word }).collect();
        words.join(" ")
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn daemon() -> PathBuf {
    find("vhost-device-vsock").unwrap_or_else(|| "vhost-device-vsock".into())
}

fn write_program(file: &Path, script: &str) {
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn installed() -> bool {
    let installed = Path::new("/usr/bin/podman").exists() && find("conmon").is_some();
    if !installed {
        let required = std::env::var_os("VC_TEST_VM").is_some_and(|value| value == "required");
        assert!(!required, "podman is not installed; `cargo xtask test` installs it");
        skip("podman is not installed");
    }
    installed
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin".into(), "/sbin".into()];
    std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(program)).find(|file| file.is_file())
}
