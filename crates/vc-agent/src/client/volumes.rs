//! Files and mounts of the guest, over ttrpc.

use vc_agent_protocol::agent::{
    CopyFileRequest, Empty, RemoveStaleVirtiofsShareMountsRequest, ResizeVolumeRequest,
    UpdateEphemeralMountsRequest, VolumeStatsRequest,
};
use vc_agent_protocol::csi::{Unit, VolumeStatsResponse, VolumeUsage as UsageMessage};
use vc_types::{Deadline, GuestPath};

use super::{Client, message};
use crate::{AgentError, Call, CopyFile, FileContent, Storage, VolumeStats, VolumeUsage, Volumes};

/// The kinds of file, as `st_mode` has them (inode(7)).
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

impl Volumes for Client {
    async fn copy_file(&self, request: &CopyFile<'_>, deadline: Deadline) -> Result<(), AgentError> {
        let message = copy_request(request)?;
        self.calls.ask::<Empty>(Call::CopyFile, &message, Some(deadline)).await.map(drop)
    }

    async fn volume_stats(&self, path: &GuestPath, deadline: Deadline) -> Result<VolumeStats, AgentError> {
        let message = VolumeStatsRequest { volume_guest_path: path.to_string(), ..Default::default() };
        Ok(stats(self.calls.ask(Call::GetVolumeStats, &message, Some(deadline)).await?))
    }

    async fn resize_volume(
        &self,
        path: &GuestPath,
        bytes: u64,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let message =
            ResizeVolumeRequest { volume_guest_path: path.to_string(), size: bytes, ..Default::default() };
        self.calls.ask::<Empty>(Call::ResizeVolume, &message, Some(deadline)).await.map(drop)
    }

    async fn update_ephemeral_mounts(
        &self,
        storages: &[Storage],
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let storages = storages.iter().map(message::storage).collect();
        let message = UpdateEphemeralMountsRequest { storages, ..Default::default() };
        self.calls.ask::<Empty>(Call::UpdateEphemeralMounts, &message, Some(deadline)).await.map(drop)
    }

    async fn remove_stale_shares(&self, deadline: Deadline) -> Result<(), AgentError> {
        let message = RemoveStaleVirtiofsShareMountsRequest::new();
        let call = Call::RemoveStaleVirtiofsShareMounts;
        self.calls.ask::<Empty>(call, &message, Some(deadline)).await.map(drop)
    }
}

fn copy_request(request: &CopyFile<'_>) -> Result<CopyFileRequest, AgentError> {
    let unsendable = |detail: String| AgentError::Unsendable { call: Call::CopyFile, detail };
    let length = |bytes: u64| {
        i64::try_from(bytes).map_err(|_| unsendable(format!("{bytes} bytes are too many for a file")))
    };
    let id = |id: u32| i32::try_from(id).map_err(|_| unsendable(format!("the owner {id} is too large")));
    let (kind, size, offset, data) = match request.content {
        FileContent::Regular { size, offset, data } => {
            if data.len() > FileContent::MAX_PIECE {
                let most = FileContent::MAX_PIECE;
                return Err(unsendable(format!("a piece of {} bytes; at most {most}", data.len())));
            }
            (REGULAR, length(size)?, length(offset)?, data.to_vec())
        }
        FileContent::Directory => (DIRECTORY, 0, 0, Vec::new()),
        FileContent::Symlink { target } => (SYMLINK, 0, 0, target.as_bytes().to_vec()),
    };
    Ok(CopyFileRequest {
        path: request.path.to_string(),
        file_size: size,
        file_mode: kind | request.mode & 0o7777,
        dir_mode: request.directory_mode & 0o7777,
        uid: id(request.uid)?,
        gid: id(request.gid)?,
        offset,
        data,
        ..Default::default()
    })
}

fn stats(answer: VolumeStatsResponse) -> VolumeStats {
    let of = |unit: Unit| {
        let found = answer.usage.iter().find(|usage| usage.unit.enum_value() == Ok(unit));
        found.map(|usage: &UsageMessage| VolumeUsage {
            total: usage.total,
            used: usage.used,
            available: usage.available,
        })
    };
    let condition = answer.volume_condition.as_ref().filter(|condition| condition.abnormal);
    VolumeStats {
        bytes: of(Unit::BYTES),
        inodes: of(Unit::INODES),
        fault: condition.map(|condition| condition.message.clone()),
    }
}
