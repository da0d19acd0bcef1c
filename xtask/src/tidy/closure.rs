//! Crates that are meant to be useful alone bring few others with them.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::process;
use crate::workspace::Workspace;

/// Each such crate with the most crates from outside that `cargo tree` with these options may show.
const MOST: [(&str, &[&str], usize); 2] = [
    ("vc-types", &["--edges=no-dev"], 14),
    // As anybody would look at it, so what its tests use counts too.
    ("vc-device", &[], 14),
];

pub(super) fn complaints(workspace: &Workspace) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (name, options, most) in MOST {
        let mut tree = workspace.cargo();
        // For every target, so that the answer does not depend on who asks.
        tree.args(["tree", "--locked", "--prefix=none", "--target=all", "--package", name]).args(options);
        complaints.extend(complaint(name, most, &process::text(&mut tree)?));
    }
    Ok(complaints)
}

/// The complaint about a crate whose `cargo tree` is `tree`, unless it keeps to its limit.
fn complaint(name: &str, most: usize, tree: &str) -> Option<String> {
    let outside = outside(tree);
    (outside.len() > most).then(|| {
        let list: Vec<_> = outside.iter().copied().collect();
        format!(
            "{name}: `cargo tree` shows {} crates, {most} are allowed: {}",
            outside.len(),
            list.join(", ")
        )
    })
}

/// The crates in `cargo tree --prefix=none` that come from a registry, by name and version.
fn outside(tree: &str) -> BTreeSet<&str> {
    let crates = tree.lines().map(|line| line.split(" (").next().unwrap_or(line).trim());
    // Ours are the ones that do not come from a registry: behind them stands their directory.
    let ours: BTreeSet<&str> =
        tree.lines().filter(|line| line.contains(" (/")).filter_map(|line| line.split(" (").next()).collect();
    crates.filter(|name| !name.is_empty() && !ours.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "vc-device v0.1.0 (/src/vc device)
serde v1.0.229
serde_core v1.0.229
serde_derive v1.0.229 (proc-macro)
syn v3.0.10
syn v3.0.10 (*)
vc-types v0.1.0 (/src/vc/crates/vc-types)
serde v1.0.229 (*)
vc-types v0.1.0 (*)
";

    #[test]
    fn crates_from_outside_are_counted_once() {
        let expected = ["serde v1.0.229", "serde_core v1.0.229", "serde_derive v1.0.229", "syn v3.0.10"];
        assert_eq!(outside(TREE).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(complaint("vc-device", 4, TREE), None);
        let complaint = complaint("vc-device", 3, TREE).unwrap();
        assert!(
            complaint.starts_with("vc-device: `cargo tree` shows 4 crates, 3 are allowed: serde v1.0.229, "),
            "{complaint}"
        );
    }
}
