//! What serves devices on the host: real daemons, loop devices, taps. Each goes when it is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vc_types::HostPath;

/// A process that serves a socket.
pub(crate) struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    /// QEMU's storage daemon, which exports an image by vhost-user-blk.
    pub(crate) fn vhost_user_blk(socket: &Path, image: &Path) -> Option<Self> {
        let mut command = Command::new("qemu-storage-daemon");
        let node = format!("driver=file,node-name=image,filename={},read-only=on", image.display());
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=image,addr.type=unix,addr.path={}",
            socket.display()
        );
        command.args(["--blockdev", &node, "--export", &export]);
        Self::start(command, socket)
    }

    /// The virtiofsd that comes with QEMU 7.2.
    pub(crate) fn virtiofsd(socket: &Path, directory: &Path) -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let mut command = Command::new("/usr/lib/qemu/virtiofsd");
        command.arg(format!("--socket-path={}", socket.display()));
        command.args(["-o", &format!("source={}", directory.display())]).stderr(std::process::Stdio::null());
        Self::start(command, socket)
    }

    pub(crate) fn socket(&self) -> HostPath {
        HostPath::new(&self.socket).unwrap()
    }

    fn start(mut command: Command, socket: &Path) -> Option<Self> {
        let process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                vc_tests::skip(&format!("{command:?} cannot be run: {error}"));
                return None;
            }
        };
        let mut server = Self { process, socket: socket.to_path_buf() };
        let until = Instant::now() + Duration::from_secs(60);
        while !server.socket.exists() {
            assert!(Instant::now() < until, "{command:?} makes no socket");
            assert_eq!(server.process.try_wait().unwrap(), None, "{command:?} ended");
            std::thread::yield_now();
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A read-only loop device.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
}

impl LoopDevice {
    pub(crate) fn attach(image: &Path) -> Option<Self> {
        let made =
            Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(image).output().unwrap();
        if !made.status.success() {
            vc_tests::skip(&format!("no loop device: {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        Some(Self { path: String::from_utf8(made.stdout).unwrap().trim().into() })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.path.display());
    }
}

/// A macvtap above one end of a veth pair: a tap that needs no ioctl(2), and has the virtio header.
pub(crate) struct Tap {
    file: Arc<File>,
}

/// The end of the pair that the macvtap is above; with it everything goes.
const LINK: &str = "vc-test0";

impl Tap {
    pub(crate) fn open() -> Option<Self> {
        let ip = |arguments: &str| {
            Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|s| s.success())
        };
        let made = ip(&format!("link add {LINK} type veth peer name vc-test1"))
            && ip(&format!("link add link {LINK} name vc-tap0 type macvtap mode bridge"))
            && ip(&format!("link set {LINK} up"))
            && ip("link set vc-test1 up")
            && ip("link set vc-tap0 up");
        if !made {
            remove_link();
            vc_tests::skip("no macvtap can be made here");
            return None;
        }
        let index = std::fs::read_to_string("/sys/class/net/vc-tap0/ifindex").unwrap();
        let node = format!("/dev/tap{}", index.trim());
        let file = File::options().read(true).write(true).open(node).unwrap();
        Some(Self { file: Arc::new(file) })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// The address that the host has given it; the guest's must be the same, or nothing arrives.
    pub(crate) fn address() -> String {
        std::fs::read_to_string("/sys/class/net/vc-tap0/address").unwrap().trim().to_owned()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        remove_link();
    }
}

fn remove_link() {
    // It may not have come to be.
    let _ = Command::new("ip").args(["link", "del", LINK]).output();
}
