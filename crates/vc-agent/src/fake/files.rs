//! Files that were copied into the guest.

use std::collections::{BTreeMap, BTreeSet};

use vc_types::GuestPath;

use super::world::{Done, refused};
use crate::{Call, CopyFile, FileContent};

#[derive(Debug, Default)]
pub(super) struct Files {
    whole: BTreeMap<GuestPath, Vec<u8>>,
    /// Files of which pieces are still to come.
    begun: BTreeMap<GuestPath, Vec<u8>>,
    links: BTreeSet<GuestPath>,
}

impl Files {
    pub(super) fn copy(&mut self, request: &CopyFile<'_>) -> Done {
        let path = &request.path;
        if !path.as_str().starts_with("/run/") {
            return refused(Call::CopyFile, &format!("{path} is not below /run"));
        }
        if self.links.iter().any(|link| path.as_str().starts_with(&format!("{link}/"))) {
            return refused(Call::CopyFile, &format!("{path} leads through a link"));
        }
        match request.content {
            FileContent::Directory => Ok(()),
            FileContent::Symlink { .. } => {
                self.links.insert(path.clone());
                Ok(())
            }
            FileContent::Regular { size, offset, data } => self.piece(path, size, offset, data),
        }
    }

    fn piece(&mut self, path: &GuestPath, size: u64, offset: u64, data: &[u8]) -> Done {
        let mut bytes = if offset == 0 { Vec::new() } else { self.begun.remove(path).unwrap_or_default() };
        if length(&bytes) != offset || offset + length(data) > size {
            return refused(Call::CopyFile, &format!("the piece at {offset} does not follow"));
        }
        bytes.extend(data);
        let files = if length(&bytes) == size { &mut self.whole } else { &mut self.begun };
        files.insert(path.clone(), bytes);
        Ok(())
    }

    pub(super) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.whole.insert(GuestPath::new(path).expect("a path of the fake"), bytes);
    }

    pub(super) fn get(&self, path: &str) -> Option<&[u8]> {
        let path = GuestPath::new(path).ok()?;
        self.whole.get(&path).map(Vec::as_slice)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
