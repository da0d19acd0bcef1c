//! What several messages of the wire share.

use vc_agent_protocol::agent::{FSGroup, Storage as StorageMessage};
use vc_agent_protocol::spec::{ConvertError, Travels, to_wire};
use vc_agent_protocol::types::FSGroupChangePolicy;

use crate::{AgentError, Call, FsGroup, FsGroupPolicy, ProcessRef, Storage};

/// The `exec_id` by which the wire knows `process`. The init process has its container's id; an
/// empty one would mean every process of the container.
pub(super) fn exec_id(process: &ProcessRef) -> String {
    match &process.exec {
        None => process.container.to_string(),
        Some(exec) => exec.to_string(),
    }
}

pub(super) fn storage(storage: &Storage) -> StorageMessage {
    StorageMessage {
        driver: storage.driver.name().to_owned(),
        driver_options: storage.driver_options.clone(),
        source: storage.source.clone(),
        fstype: storage.fs_type.clone(),
        options: storage.options.clone(),
        mount_point: storage.mount_point.to_string(),
        fs_group: storage.fs_group.map(fs_group).into(),
        shared: storage.shared,
        ..Default::default()
    }
}

fn fs_group(group: FsGroup) -> FSGroup {
    let policy = match group.policy {
        FsGroupPolicy::Always => FSGroupChangePolicy::Always,
        FsGroupPolicy::OnRootMismatch => FSGroupChangePolicy::OnRootMismatch,
    };
    FSGroup { group_id: group.id, group_change_policy: policy.into(), ..Default::default() }
}

/// The message of `part`, an argument of `call`, if nothing of it is lost on the wire.
pub(super) fn whole<T: Travels>(call: Call, part: &T) -> Result<T::Message, AgentError> {
    to_wire(part).map_err(|error| match error {
        ConvertError::NotCarried { fields } => AgentError::NotCarried { call, fields },
        other => AgentError::Unsendable { call, detail: other.to_string() },
    })
}
