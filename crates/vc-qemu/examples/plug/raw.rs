//! A machine as someone starts it by hand, and QMP as someone writes it by hand: one command, one answer, no deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Fallible;

pub(super) struct RawMachine {
    qemu: Child,
    qmp: BufReader<UnixStream>,
    console: Arc<Mutex<String>>,
}

impl RawMachine {
    /// The same ports and memory as a machine of `vc`, and no vsock.
    pub(super) fn launch(image: &Path, accelerator: &str, directory: &Path) -> Fallible<Self> {
        let socket = directory.join("qmp");
        let listener = UnixListener::bind(&socket)?;
        let cpu = if accelerator == "kvm" { "host" } else { "max,-erms,-fsrm" };
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "q35,memory-backend=mem", "-accel", accelerator, "-cpu", cpu, "-m", "256M"]);
        command.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-bios",
            "qboot.rom",
        ]);
        command.arg("-kernel").arg(image.join("vmlinux")).arg("-initrd").arg(image.join("initrd"));
        command.args(["-append", "console=ttyS0 panic=-1 quiet cryptomgr.notests"]);
        for port in 0..8 {
            let place = format!("addr=0x8.{port},multifunction=on,chassis={},slot={port}", port + 1);
            command.arg("-device").arg(format!("pcie-root-port,id=rp{port},{place}"));
        }
        command.arg("-chardev").arg(format!("socket,id=qmp,path={}", socket.display()));
        command.args(["-mon", "chardev=qmp,mode=control", "-serial", "stdio"]);
        let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (qmp, _) = listener.accept()?;
        let console = Arc::new(Mutex::new(String::new()));
        let (mut output, text) = (qemu.stdout.take().ok_or("no pipe")?, Arc::clone(&console));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                let mut text = text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        let mut machine = Self { qemu, qmp: BufReader::new(qmp), console };
        machine.read(|message| message.get("QMP").is_some())?;
        machine.execute("qmp_capabilities", &json!({}))?;
        Ok(machine)
    }

    pub(super) fn console(&self) -> String {
        self.console.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Plugs a disk into the first port.
    pub(super) fn plug(&mut self, disk: &Path) -> Fallible<()> {
        let file = json!({"driver": "file", "filename": disk, "read-only": true, "locking": "off"});
        let node = json!({"node-name": "d0", "driver": "raw", "read-only": true, "file": file});
        self.execute("blockdev-add", &node)?;
        let device = json!({"driver": "virtio-blk-pci", "id": "d0", "drive": "d0", "bus": "rp0"});
        self.execute("device_add", &device)
    }

    /// Unplugs it.
    pub(super) fn unplug(&mut self) -> Fallible<()> {
        self.send("device_del", &json!({"id": "d0"}))?;
        // The answer comes first.
        self.read(|message| message["event"] == "DEVICE_DELETED" && message["data"]["device"] == "d0")?;
        self.execute("blockdev-del", &json!({"node-name": "d0"}))
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Fallible<()> {
        self.send(command, arguments)?;
        self.read(|message| message.get("return").is_some())
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Fallible<()> {
        let line = json!({"execute": command, "arguments": arguments});
        Ok(writeln!(self.qmp.get_mut(), "{line}")?)
    }

    /// Reads messages until the wanted one.
    fn read(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Fallible<()> {
        loop {
            let mut line = String::new();
            if self.qmp.read_line(&mut line)? == 0 {
                return Err("QEMU has ended".into());
            }
            let message: Value = serde_json::from_str(&line)?;
            if is_wanted(&message) {
                return Ok(());
            }
            if let Some(error) = message.get("error") {
                return Err(error.to_string().into());
            }
        }
    }
}

impl Drop for RawMachine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
