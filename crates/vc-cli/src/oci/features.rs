//! `vc features` and `vc spec`: what this runtime can do, and a specification to start from.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use super::state::print;
use crate::cli::MakeSpec;
use crate::failure::Failure;
use crate::run::spec::example;

/// What a mount may say; everything else goes to the file system. `tmpcopyup` is runc's.
const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec mand noatime nodev nodiratime noexec \
    norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rslave rw slave strictatime suid sync \
    tmpcopyup";

/// Every capability of Linux 5.9 and later (capabilities(7)).
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

const SECCOMP_ACTIONS: &str = "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG TRACE TRAP";
const SECCOMP_OPERATORS: &str = "EQ GE GT LE LT MASKED_EQ NE";

/// Prints what this runtime honours (OCI runtime specification, features.md), with the guest image that is built here;
/// docs/OCI.md has it row by row.
pub(crate) fn features() -> Result<(), Failure> {
    let prefixed = |prefix: &str, names: &str| -> Vec<String> {
        names.split_whitespace().map(|name| format!("{prefix}{name}")).collect()
    };
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": prefixed("", MOUNT_OPTIONS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": prefixed("CAP_", CAPABILITIES),
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": prefixed("SCMP_ACT_", SECCOMP_ACTIONS),
                "operators": prefixed("SCMP_CMP_", SECCOMP_OPERATORS),
                "archs": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
        "annotations": {"org.vc.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": ["io.katacontainers.config."],
    });
    print(&format!("{}\n", serde_json::to_string_pretty(&features).expect("plain values")))
}

/// Writes a config.json, if there is none.
pub(crate) fn spec(options: &MakeSpec) -> Result<(), Failure> {
    let file = options.bundle.join("config.json");
    let step = || format!("write {}; move away what is there", file.display());
    let json =
        serde_json::to_string_pretty(&example()).expect("a specification has nothing that JSON has not");
    let made = OpenOptions::new().write(true).create_new(true).open(&file);
    made.and_then(|mut made| writeln!(made, "{json}")).map_err(|error| Failure::step(step(), error))
}
