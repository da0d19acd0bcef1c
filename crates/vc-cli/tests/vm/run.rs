//! One run of `vc`, and what it left.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use vc_tests::{GuestImage, Layers, Leftovers};

/// What every run needs: a guest image, a layer with busybox, a place to look for what is left.
pub(crate) struct Bench {
    pub(crate) layers: Layers,
    pub(crate) busybox: PathBuf,
    pub(crate) leftovers: Leftovers,
    pub(crate) guest: PathBuf,
    vc: PathBuf,
    user: Option<u32>,
}

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

impl Bench {
    /// `None`, with the reason printed, when this host has no guest image.
    pub(crate) fn new() -> Option<Self> {
        let guest = GuestImage::find()?.dir;
        let layers = Layers::new();
        let busybox = layers.busybox();
        let vc = PathBuf::from(env!("CARGO_BIN_EXE_vc"));
        Some(Self { layers, busybox, leftovers: Leftovers::new(), guest, vc, user: None })
    }

    /// One whose runs are another user's, when this process is root.
    pub(crate) fn unprivileged() -> Option<Self> {
        let mut bench = Self::new()?;
        if !vc_tests::root() {
            // Then every run is an unprivileged one.
            return Some(bench);
        }
        // The other user may not be able to enter the target directory, so everything is copied.
        let dir = bench.layers.path().join("public");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        for file in ["vmlinux", "initrd"] {
            fs::copy(bench.guest.join(file), dir.join(file)).unwrap();
        }
        fs::copy(&bench.vc, dir.join("vc")).unwrap();
        if let Some(daemon) = find_in_path("vhost-device-vsock") {
            fs::copy(daemon, dir.join("vhost-device-vsock")).unwrap();
        }
        fs::set_permissions(bench.leftovers.runtime_dir(), fs::Permissions::from_mode(0o777)).unwrap();
        bench.guest.clone_from(&dir);
        bench.vc = dir.join("vc");
        bench.user = Some(NOBODY);
        Some(bench)
    }

    /// `vc run`, without layers and command.
    pub(crate) fn bare(&self) -> Command {
        let mut command = self.program();
        command.arg("run");
        command
    }

    /// `vc`, and nothing else. Its states are in the runtime directory.
    pub(crate) fn program(&self) -> Command {
        let mut command = match self.user {
            None => Command::new(&self.vc),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()]);
                command.arg(&self.vc);
                let daemon = self.guest.join("vhost-device-vsock");
                command.env("VC_VHOST_DEVICE_VSOCK", daemon);
                command
            }
        };
        command.env("VC_GUEST", &self.guest).env("XDG_RUNTIME_DIR", self.leftovers.runtime_dir());
        command
    }

    /// `vc run` of the busybox layer.
    pub(crate) fn vc(&self, options: &[&str], command: &[&str]) -> Command {
        let mut line = self.bare();
        line.args(options).arg("--layer").arg(&self.busybox).arg("--").args(command);
        line
    }

    /// `vc run` of a shell script in the busybox layer, to its end; nothing may be left.
    pub(crate) fn shell(&self, script: &str) -> Output {
        self.finish(self.vc(&[], &["sh", "-c", script]))
    }

    /// Runs a command to its end; nothing may be left.
    pub(crate) fn finish(&self, mut command: Command) -> Output {
        let output = command.stdin(Stdio::null()).output().unwrap();
        self.leftovers.assert_none();
        output
    }
}

/// Starts a command with pipes for all streams.
pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Feeds `input` to a command and collects its output.
pub(crate) fn feed(command: Command, input: &[u8]) -> Output {
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    })
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts how a run ended, with all it said in the message.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    let said = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout and stderr: {said:?}");
}

fn find_in_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(Path::new(program.as_ref()))).find(|file| file.is_file())
}
