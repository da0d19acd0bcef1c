//! Kernel parameters of the network. A container without a network namespace of its own has the guest's, which is that
//! of its sandbox and nobody else's: so the agent sets there what the container asks for. All others are the executor's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::CallError;
use crate::log::chain;
use crate::spec::SpecError;

/// Where the kernel shows its parameters (proc(5)).
const PARAMETERS: &str = "/proc/sys";

/// The values that were there before; what a creation that fails puts back.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(PathBuf, Vec<u8>)>);

impl Before {
    /// Puts them back; a failure is logged, as there is an error to report already.
    pub(super) fn restore(self) {
        for (file, value) in self.0.into_iter().rev() {
            if let Err(error) = std::fs::write(&file, value) {
                tracing::warn!(file = %file.display(), error = chain(&error), "undo failed");
            }
        }
    }
}

/// Takes the parameters of the guest's network out of `spec`, and sets them.
pub(super) fn set_those_of_the_guest(spec: &mut Spec) -> Result<Before, CallError> {
    let mut before = Before::default();
    for (file, value) in take(spec, Path::new(PARAMETERS))? {
        if let Err(error) = set(&file, &value, &mut before) {
            before.restore();
            return Err(CallError::File(file, error));
        }
    }
    Ok(before)
}

fn set(file: &Path, value: &str, before: &mut Before) -> std::io::Result<()> {
    let known = std::fs::read(file)?;
    std::fs::write(file, value)?;
    before.0.push((file.to_owned(), known));
    Ok(())
}

/// The files and the values, in the order of the names.
fn take(spec: &mut Spec, below: &Path) -> Result<Vec<(PathBuf, String)>, SpecError> {
    let Some(linux) = spec.linux_mut() else { return Ok(Vec::new()) };
    let mut namespaces = linux.namespaces().iter().flatten();
    if namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Network) {
        return Ok(Vec::new());
    }
    let all = linux.sysctl().clone().unwrap_or_default();
    let (network, others): (HashMap<_, _>, HashMap<_, _>) =
        all.into_iter().partition(|(name, _)| name.starts_with("net.") || name.starts_with("net/"));
    linux.set_sysctl(Some(others));
    let mut files = Vec::new();
    for (name, value) in network {
        files.push((below.join(relative(&name)?), value));
    }
    files.sort();
    Ok(files)
}

/// With slashes between its parts, a name may have dots in them; otherwise dots are what is between (sysctl(8)).
fn relative(name: &str) -> Result<PathBuf, SpecError> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(SpecError::Value("linux.sysctl", name.to_owned()));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &serde_json::Value) -> Spec {
        let sysctl = serde_json::json!({
            "net.ipv4.ping_group_range": "0 0", "net/ipv4/conf/eth0.1/mtu": "1", "kernel.shmmax": "1",
        });
        let linux = serde_json::json!({"sysctl": sysctl, "namespaces": namespaces});
        serde_json::from_value(serde_json::json!({"ociVersion": "1.2.0", "linux": linux})).unwrap()
    }

    #[test]
    fn those_of_the_guests_network_are_taken_and_no_other() {
        let mut spec = spec(&serde_json::json!([{"type": "ipc"}]));
        let files = take(&mut spec, Path::new("/proc/sys")).unwrap();
        let expected = [
            ("/proc/sys/net/ipv4/conf/eth0.1/mtu".into(), "1".to_owned()),
            ("/proc/sys/net/ipv4/ping_group_range".into(), "0 0".to_owned()),
        ];
        assert_eq!(files, expected);
        let left = spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["kernel.shmmax"]);
    }

    #[test]
    fn a_container_with_a_network_of_its_own_keeps_them() {
        let mut spec = spec(&serde_json::json!([{"type": "network"}]));
        assert!(take(&mut spec, Path::new("/proc/sys")).unwrap().is_empty());
        assert_eq!(spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap().len(), 3);
    }

    #[test]
    fn a_name_stays_below_the_parameters() {
        for name in ["net/../kernel/core_pattern", "net..x", "net.", "net//x"] {
            relative(name).unwrap_err();
        }
    }

    #[test]
    fn what_cannot_be_set_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("missing"));
        std::fs::write(&first, "old").unwrap();
        let mut before = Before::default();
        set(&first, "new", &mut before).unwrap();
        set(&second, "new", &mut before).unwrap_err();
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "new");
        before.restore();
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "old");
    }
}
