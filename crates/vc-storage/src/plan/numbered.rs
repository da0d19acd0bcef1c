//! Names in the shared directory that no container of the sandbox had before.

use std::collections::BTreeMap;

use vc_types::GuestPath;

use super::{Edit, PlannedSource, ServicePlan, StoragePlan, names, rootfs};

impl StoragePlan {
    /// Puts a number behind all names that the container has in what is shared; 0 leaves them as they are. Once for a
    /// plan, with another number for each container of a sandbox.
    ///
    /// The guest goes on with what it has found by a name, for seconds or, of an image of nydus, for ever. A second
    /// container of the same name would have the directories of the first.
    pub fn number_shares(&mut self, number: u32) {
        self.number = number;
        let mut paths = BTreeMap::new();
        for share in &mut self.shares {
            let name = names::numbered(&share.name, number);
            let old = std::mem::replace(&mut share.name, name);
            for at in [names::shared, names::watchable] {
                paths.insert(at(&old).to_string(), at(&share.name));
            }
        }
        self.rename(&paths);
        if let Some(ServicePlan::Nydusd { target, .. }) = self.services.first_mut() {
            *target = names::rafs(&self.container, number);
            let overlays = self.storages.iter_mut().filter(|storage| storage.mount_point == self.rootfs);
            overlays.for_each(|overlay| overlay.options = rootfs::overlay_of_nydus(&self.container, number));
        }
    }

    /// Has everything that names one of these paths name another one.
    fn rename(&mut self, paths: &BTreeMap<String, GuestPath>) {
        let sources = self.storages.iter_mut().filter_map(|storage| match &mut storage.source {
            PlannedSource::Guest { source, .. } => Some(source),
            PlannedSource::Disk { .. } => None,
        });
        let told = self.mounts.iter_mut().filter_map(|mount| match &mut mount.edit {
            Edit::Replace { source, .. } => Some(source),
            Edit::Keep | Edit::Remove => None,
        });
        for text in sources.chain(told) {
            if let Some(path) = paths.get(text.as_str()) {
                *text = path.to_string();
            }
        }
        let mount_points = self.storages.iter_mut().map(|storage| &mut storage.mount_point);
        for at in mount_points.chain([&mut self.rootfs]) {
            if let Some(path) = paths.get(at.as_str()) {
                *at = path.clone();
            }
        }
    }
}
