//! A plan as a tree, for people.

use std::fmt;

use vc_device::{Access, DeviceSource};

use super::disk::path_of;
use super::{
    DiskPlan, DiskUse, Edit, MountEdit, Part, PlannedSource, PlannedStorage, ServicePlan, StoragePlan,
};

/// A line, and those below it.
struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn leaf(text: String) -> Self {
        Self { text, children: Vec::new() }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        for (index, child) in self.children.iter().enumerate() {
            let is_last = index + 1 == self.children.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            write!(f, "\n{indent}{branch}{}", Line(&child.text))?;
            child.write(f, &format!("{indent}{below}"))?;
        }
        Ok(())
    }
}

/// Text on one line, whatever a path has in it.
struct Line<'a>(&'a str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        self.0.chars().try_for_each(|c| fmt::Write::write_char(f, plain(c)))
    }
}

impl fmt::Display for StoragePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut children = vec![self.root_node()];
        children.extend(self.mounts.iter().enumerate().map(|(index, edit)| self.mount_node(index, edit)));
        children.push(self.order_node());
        write!(f, "container {}", self.container)?;
        Node { text: String::new(), children }.write(f, "")
    }
}

impl StoragePlan {
    fn root_node(&self) -> Node {
        let text = format!("root file system: {}, at {} in the guest", self.root.way, self.rootfs);
        let mut children = vec![because(&self.root.reason)];
        children.extend(self.images.iter().map(|image| {
            let size = image.filesystem.size;
            Node::leaf(format!("make {}: {} of {size} bytes", image.path, image.filesystem.fs_type))
        }));
        children.extend(self.services.iter().map(|ServicePlan::Nydusd { source, target, .. }| {
            Node::leaf(format!("ask nydusd to mount {source} at {target}"))
        }));
        children.extend(self.part(Part::Root));
        Node { text, children }
    }

    fn mount_node(&self, index: usize, edit: &MountEdit) -> Node {
        let mut children = vec![because(&edit.decision.reason)];
        children.extend(self.part(Part::Mount(index)));
        match &edit.edit {
            Edit::Keep => {}
            Edit::Replace { kind, source, options } => {
                children.push(Node::leaf(format!(
                    "the guest is told {kind} of {source} ({})",
                    options.join(",")
                )));
            }
            Edit::Remove => children.push(Node::leaf("the guest is not told of it".to_owned())),
        }
        Node { text: format!("{}: {}", edit.destination, edit.decision.way), children }
    }

    /// What is plugged, shared and copied for a part.
    fn part(&self, part: Part) -> Vec<Node> {
        let disks = self.disks.iter().enumerate().filter(|(_, disk)| disk.part == part);
        let mut nodes: Vec<Node> = disks.map(|(number, disk)| disk_node(number, disk)).collect();
        nodes.extend(self.shares.iter().filter(|share| share.part == part).map(|share| {
            let access = if share.read_only { "read-only" } else { "read-write" };
            let mounts = if share.recursive { ", with the mounts below it" } else { "" };
            Node::leaf(format!("share {} as {} ({access}{mounts})", share.source, share.name))
        }));
        nodes.extend(self.copies.iter().filter(|copy| copy.part == part).map(|copy| {
            let again = if copy.watched { ", and again when it changes" } else { "" };
            Node::leaf(format!("copy {} to {}{again}", copy.source, copy.target))
        }));
        nodes
    }

    fn order_node(&self) -> Node {
        let line = |(index, storage)| Node::leaf(format!("{}. {}", index + 1, storage_line(storage)));
        let children = self.storages.iter().enumerate().map(line).collect();
        Node { text: "the agent mounts, in this order".to_owned(), children }
    }
}

fn because(reason: &str) -> Node {
    Node::leaf(format!("because {reason}"))
}

fn disk_node(number: usize, disk: &DiskPlan) -> Node {
    let access = match disk.access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    };
    let name = |image: &DeviceSource| path_of(image).map_or_else(|| "?".to_owned(), ToString::to_string);
    match (disk.holds, &*disk.images) {
        (DiskUse::Layers, images) => Node {
            text: format!("plug disk {number} ({access}): {} images as partitions", images.len()),
            children: images
                .iter()
                .enumerate()
                .map(|(n, image)| Node::leaf(format!("{}: {}", n + 1, name(image))))
                .collect(),
        },
        (_, images) => {
            let names: Vec<String> = images.iter().map(name).collect();
            Node::leaf(format!("plug disk {number} ({access}): {}", names.join(", ")))
        }
    }
}

fn storage_line(storage: &PlannedStorage) -> String {
    let source = match &storage.source {
        PlannedSource::Disk { disk } => format!("disk {disk}"),
        PlannedSource::Guest { driver, source } => format!("{} {source}", driver.name()),
    };
    let options = storage.options.join(",");
    let options = if options.is_empty() { String::new() } else { format!(" ({options})") };
    format!("{source} as {} at {}{options}", storage.fs_type, storage.mount_point)
}
