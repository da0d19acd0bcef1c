//! What the kubelet's paths say: `…/volumes/kubernetes.io~KIND/NAME`.

use vc_types::HostPath;

/// Kinds whose files the kubelet replaces all at once.
const REPLACED: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
];

/// More files are not watched: the agent copies them all each time.
pub(crate) const MOST_FILES: usize = 16;

/// The name of an `emptyDir`.
pub(super) fn empty_dir(source: &HostPath) -> Option<String> {
    let (kind, name) = kind_and_name(source)?;
    (kind == "kubernetes.io~empty-dir").then(|| name.to_owned())
}

/// Whether the kubelet replaces its files.
pub(crate) fn is_replaced(source: &HostPath) -> bool {
    kind_and_name(source).is_some_and(|(kind, _)| REPLACED.contains(&kind))
}

/// Whether a change of it can be followed.
pub(super) fn is_watchable(source: &HostPath, files: usize) -> bool {
    is_replaced(source) && (1..=MOST_FILES).contains(&files)
}

fn kind_and_name(source: &HostPath) -> Option<(&str, &str)> {
    let path = source.as_path();
    Some((path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?))
}
