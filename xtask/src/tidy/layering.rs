//! Who may depend on whom. `docs/ARCHITECTURE.md` has the reasons; this table has the rule.

use crate::workspace::{Dependency, Kind, Package};

/// Each crate with the crates of this workspace that it may build upon.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("vc-types", &[]),
    ("vc-mountinfo", &[]),
    ("vc-agent-protocol", &[]),
    ("vc-image", &[]),
    ("vc-device", &["vc-types"]),
    ("vc-hypervisor", &["vc-types", "vc-device"]),
    ("vc-qemu", &["vc-types", "vc-device", "vc-hypervisor"]),
    ("vc-agent", &["vc-types", "vc-agent-protocol"]),
    ("vc-storage", &["vc-types", "vc-mountinfo", "vc-device", "vc-agent"]),
    ("vc-share", &["vc-types", "vc-mountinfo"]),
    ("vc-container", &["vc-types", "vc-device", "vc-hypervisor", "vc-agent", "vc-storage", "vc-share"]),
    ("vc-guest", &["vc-types", "vc-agent-protocol"]),
    ("vc-cli", FRONT_END),
    ("vc-shim", FRONT_END),
    ("vc-tests", FRONT_END),
    ("xtask", &["vc-image"]),
];

/// A front end puts the others together.
const FRONT_END: &[&str] = &[
    "vc-types",
    "vc-mountinfo",
    "vc-agent-protocol",
    "vc-image",
    "vc-device",
    "vc-hypervisor",
    "vc-qemu",
    "vc-agent",
    "vc-storage",
    "vc-share",
    "vc-container",
];

/// Packages from outside that only these crates may build upon: what an adapter is there to hide.
const HIDDEN: [(&str, &[&str]); 5] = [
    ("qapi", &["vc-qemu"]),
    ("ttrpc", &["vc-agent-protocol", "vc-agent", "vc-guest"]),
    ("protobuf", &["vc-agent-protocol", "vc-agent", "vc-guest"]),
    ("tokio-vsock", &["vc-agent", "vc-guest"]),
    ("libcontainer", &["vc-guest"]),
];

/// Crates that know the agent's port but not its client, which speaks vsock.
const WITHOUT_CLIENT: [&str; 2] = ["vc-storage", "vc-container"];

/// Every dependency against the rules, and every crate that has no rule.
pub(super) fn complaints(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            complaints.push(format!(
                "{}: a new crate; say in {} what it may build upon",
                package.name,
                file!()
            ));
            continue;
        };
        let inside = |dependency: &Dependency| packages.iter().any(|other| other.name == dependency.name);
        for dependency in &package.dependencies {
            let refusal = match dependency.kind {
                Kind::Development => refuse_development(dependency),
                Kind::Build if inside(dependency) => refuse_inside(package, dependency, allowed),
                Kind::Build => refuse_outside(package, dependency),
            };
            complaints.extend(refusal.map(|why| format!("{} -> {}: {why}", package.name, dependency.name)));
        }
    }
    complaints
}

/// Tests may build upon what they like, except for the programs at the top.
fn refuse_development(dependency: &Dependency) -> Option<&'static str> {
    matches!(dependency.name.as_str(), "vc-cli" | "xtask").then_some("not even a test may depend on it")
}

fn refuse_inside(package: &Package, dependency: &Dependency, allowed: &[&str]) -> Option<&'static str> {
    if !allowed.contains(&dependency.name.as_str()) {
        return Some("against the direction of dependencies");
    }
    let with_client =
        dependency.default_features || dependency.features.iter().any(|feature| feature == "client");
    let barred = dependency.name == "vc-agent" && WITHOUT_CLIENT.contains(&package.name.as_str());
    (barred && with_client).then_some("it may use the port, not the feature `client`")
}

fn refuse_outside(package: &Package, dependency: &Dependency) -> Option<&'static str> {
    if dependency.name == "anyhow" && package.is_library {
        return Some("a library's errors are typed");
    }
    let rule = HIDDEN.iter().find(|(name, _)| *name == dependency.name);
    rule.filter(|(_, users)| !users.contains(&package.name.as_str()))
        .map(|_| "an adapter hides it from the others")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: Vec<Dependency>) -> Package {
        Package { name: name.into(), is_library: name != "xtask", dependencies }
    }

    fn on(name: &str) -> Dependency {
        Dependency { name: name.into(), kind: Kind::Build, features: Vec::new(), default_features: false }
    }

    /// What is said about `from`, in a workspace that has its dependencies as crates of its own.
    fn verdict(from: &str, dependency: Dependency, inside: bool) -> Vec<String> {
        let mut packages = Vec::new();
        if inside {
            packages.push(package(&dependency.name, Vec::new()));
        }
        packages.push(package(from, vec![dependency]));
        complaints(&packages)
    }

    #[test]
    fn the_directions_hold() {
        assert_eq!(verdict("vc-qemu", on("vc-hypervisor"), true), [""; 0]);
        assert_eq!(verdict("vc-cli", on("vc-container"), true), [""; 0]);
        for (from, to) in [
            ("vc-hypervisor", "vc-qemu"),
            ("vc-container", "vc-qemu"),
            ("vc-container", "vc-mountinfo"),
            ("vc-types", "vc-device"),
            ("vc-cli", "vc-guest"),
            ("vc-container", "vc-cli"),
            ("vc-guest", "xtask"),
        ] {
            let complaints = verdict(from, on(to), true);
            assert_eq!(complaints, [format!("{from} -> {to}: against the direction of dependencies")]);
        }
    }

    #[test]
    fn a_crate_without_a_rule_is_noticed() {
        assert!(complaints(&[package("vc-new", Vec::new())])[0].starts_with("vc-new: a new crate"));
    }

    #[test]
    fn tests_depend_more_freely_but_never_on_programs() {
        let development = |name| Dependency { kind: Kind::Development, ..on(name) };
        assert_eq!(verdict("vc-container", development("vc-qemu"), true), [""; 0]);
        assert_eq!(verdict("vc-types", development("anyhow"), false), [""; 0]);
        assert_eq!(verdict("vc-container", development("vc-cli"), true).len(), 1);
        assert_eq!(verdict("vc-types", development("xtask"), true).len(), 1);
    }

    #[test]
    fn adapters_hide_what_they_wrap() {
        assert_eq!(verdict("vc-qemu", on("qapi"), false), [""; 0]);
        assert_eq!(verdict("vc-container", on("qapi"), false).len(), 1);
        assert_eq!(verdict("vc-storage", on("ttrpc"), false).len(), 1);
    }

    #[test]
    fn libraries_have_typed_errors() {
        assert_eq!(verdict("xtask", on("anyhow"), false), [""; 0]);
        assert_eq!(
            verdict("vc-types", on("anyhow"), false),
            ["vc-types -> anyhow: a library's errors are typed"]
        );
    }

    #[test]
    fn the_orchestrator_does_not_know_the_client() {
        let with = |features: &[&str], default_features| {
            let features = features.iter().map(ToString::to_string).collect();
            verdict("vc-container", Dependency { features, default_features, ..on("vc-agent") }, true)
        };
        assert_eq!(with(&[], false), [""; 0]);
        assert_eq!(with(&["fake"], false), [""; 0]);
        assert_eq!(with(&[], true).len(), 1);
        assert_eq!(with(&["client"], false).len(), 1);
    }
}
