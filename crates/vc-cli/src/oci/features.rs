//! `vc features` and `vc spec`: what this runtime can do, and a specification to start from.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use super::state::print;
use crate::cli::MakeSpec;
use crate::failure::Failure;
use crate::run::spec::example;

/// Prints what this runtime honours (OCI runtime specification, features.md); docs/OCI.md has it row by row.
pub(crate) fn features() -> Result<(), Failure> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": ["prestart", "createRuntime", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "cgroup": {"v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
        },
        "annotations": {"org.vc.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": [],
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
