//! GetGuestDetails: what this agent and its kernel can do.

use crate::storage::StorageSpec;
use std::path::Path;
use vc_agent_protocol::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

const MEMORY: &str = "/sys/devices/system/memory";

/// The data of an EROFS image may be in partitions of their own (`X-vc.blob-partition`). The agent protocol has no
/// such option, so a runtime has to see this feature before it uses it.
const BLOB_PARTITIONS: &str = "vc.blob-partitions";

/// The answer to `request`.
pub(crate) fn details(request: &GuestDetailsRequest) -> GuestDetailsResponse {
    let block_size = || {
        let text = std::fs::read_to_string(format!("{MEMORY}/block_size_bytes")).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let details = AgentDetails {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        init_daemon: std::process::id() == 1,
        device_handlers: crate::spec::DEVICE_HANDLERS.iter().map(|&name| name.to_owned()).collect(),
        storage_handlers: StorageSpec::DRIVERS.map(str::to_owned).to_vec(),
        supports_seccomp: crate::SUPPORTS_SECCOMP,
        extra_features: vec![BLOB_PARTITIONS.to_owned()],
        ..Default::default()
    };
    GuestDetailsResponse {
        mem_block_size_bytes: request.mem_block_size.then(block_size).flatten().unwrap_or_default(),
        support_mem_hotplug_probe: request.mem_hotplug_probe && Path::new(MEMORY).join("probe").exists(),
        agent_details: Some(details).into(),
        ..Default::default()
    }
}
