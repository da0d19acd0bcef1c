//! From the specification of a container to what the planner is asked.

use std::collections::BTreeMap;

use oci_spec::runtime::{Mount, Spec};
use vc_storage::{ContainerMount, Rootfs, StorageRequest};
use vc_types::ContainerId;

/// A limit on huge pages that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hugepageLimits has the page size {0:?}; expected is a number with KB, MB or GB, such as 2MB")]
pub struct InvalidPageSize(pub String);

/// What a container needs of storage, by its specification.
///
/// # Errors
/// [`InvalidPageSize`] when `linux.resources.hugepageLimits` cannot be read.
pub fn storage_request(
    container: ContainerId,
    rootfs: Rootfs,
    spec: &Spec,
) -> Result<StorageRequest, InvalidPageSize> {
    let mounts = spec.mounts().iter().flatten().map(container_mount).collect();
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let limits = resources.and_then(|resources| resources.hugepage_limits().as_ref());
    let mut huge_pages = BTreeMap::new();
    for limit in limits.into_iter().flatten() {
        let page = page_size(limit.page_size()).ok_or_else(|| InvalidPageSize(limit.page_size().clone()))?;
        // A negative limit is none, and there is no such amount of pages.
        huge_pages.insert(page, u64::try_from(limit.limit()).unwrap_or(0));
    }
    Ok(StorageRequest { container, rootfs, mounts, huge_pages })
}

fn container_mount(mount: &Mount) -> ContainerMount {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    ContainerMount {
        destination: text(mount.destination()),
        mount: vc_storage::Mount {
            kind: mount.typ().clone().unwrap_or_default(),
            source: mount.source().as_deref().map(text).unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
        },
    }
}

/// Reads `2MB`, in which the units are powers of 1024 (OCI runtime spec, "Huge page limits").
fn page_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Result<StorageRequest, InvalidPageSize> {
        let rootfs = vc_storage::Mount { kind: "bind".into(), source: "/srv".into(), options: Vec::new() };
        let rootfs = Rootfs::of_mounts(&[rootfs]).unwrap();
        storage_request("web".parse().unwrap(), rootfs, &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn mounts_keep_their_order_and_limits_their_sizes() {
        let request = request(
            r#"{"ociVersion": "1.2.0",
                "mounts": [{"destination": "/b", "source": "/srv/b", "type": "bind", "options": ["rbind"]}, {"destination": "/a"}],
                "linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": -1}]}}}"#,
        )
        .unwrap();
        let destinations: Vec<_> = request.mounts.iter().map(|mount| mount.destination.as_str()).collect();
        assert_eq!(destinations, ["/b", "/a"]);
        assert_eq!(request.mounts[0].mount.source, "/srv/b");
        assert_eq!(request.huge_pages, [(2 << 20, 4 << 20), (1 << 30, 0)].into());
    }

    #[test]
    fn a_page_size_has_a_unit() {
        for bad in ["", "2", "MB", "2M", "2mb", "99999999999999GB", "-1MB"] {
            assert_eq!(page_size(bad), None, "{bad}");
        }
        let json = r#"{"ociVersion": "1.2.0", "linux": {"resources": {"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}}}"#;
        assert_eq!(request(json).unwrap_err().0, "2M");
    }
}
