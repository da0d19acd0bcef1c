//! Which mount a path is on, from the ids of a mount table alone.

use std::path::Path;

/// A mount as the walk sees it.
pub(crate) trait Node {
    fn id(&self) -> u32;
    fn parent_id(&self) -> u32;
    fn mount_point(&self) -> &Path;
}

/// The mount on which the absolute `path` is, as a process whose root is `/` of this table sees it.
///
/// It walks as the kernel does, from the root mount down: of the mounts on the current one, that with the
/// shortest mount point on the path is met first, and hides all that the path would have met behind it. The
/// order of the lines means nothing: `MOVE_MOUNT_BENEATH` and `MS_MOVE` both break "the last one wins".
pub(crate) fn walk<'n, N: Node>(nodes: &'n [N], path: &Path) -> Option<&'n N> {
    let on_path: Vec<&N> = nodes.iter().filter(|node| path.starts_with(node.mount_point())).collect();
    let is_listed = |id: u32| on_path.iter().any(|node| node.id() == id);
    // The process's root does not follow what was mounted over it later, so its parent is not listed (or
    // is itself). In a chroot below a mount point the root mount is not listed either; then any such mount
    // is a start.
    let starts = on_path.iter().filter(|node| node.parent_id() == node.id() || !is_listed(node.parent_id()));
    let mut current = *starts.min_by_key(|node| length(**node))?;
    let root = current.mount_point() == Path::new("/");
    // Each step goes down one mount; the bound is against tables that are no tree.
    for step in 0..on_path.len() {
        let on_current = on_path.iter().filter(|node| {
            let hidden_root = root && step == 0 && node.mount_point() == Path::new("/");
            node.parent_id() == current.id() && node.id() != current.id() && !hidden_root
        });
        match on_current.min_by_key(|node| length(**node)) {
            Some(next) => current = next,
            None => break,
        }
    }
    Some(current)
}

fn length(node: &impl Node) -> usize {
    node.mount_point().as_os_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(u32, u32, &'static str);

    impl Node for Row {
        fn id(&self) -> u32 {
            self.0
        }
        fn parent_id(&self) -> u32 {
            self.1
        }
        fn mount_point(&self) -> &Path {
            Path::new(self.2)
        }
    }

    fn visible(rows: &[Row], path: &str) -> Option<u32> {
        walk(rows, Path::new(path)).map(Node::id)
    }

    #[test]
    fn the_top_of_a_stack_is_the_one_nothing_is_mounted_on() {
        // A mount beneath the top one comes after it in the table.
        let rows = [Row(1, 0, "/"), Row(2, 1, "/a"), Row(4, 3, "/a"), Row(3, 2, "/a")];
        assert_eq!(visible(&rows, "/a"), Some(4));
        assert_eq!(visible(&rows, "/a/b"), Some(4));
        assert_eq!(visible(&rows, "/ab"), Some(1));
    }

    #[test]
    fn a_mount_on_a_parent_directory_hides_those_below() {
        let rows = [Row(1, 0, "/"), Row(2, 1, "/a/b"), Row(3, 1, "/a")];
        assert_eq!(visible(&rows, "/a/b"), Some(3));
    }

    #[test]
    fn the_root_does_not_follow_what_is_mounted_over_it() {
        let rows = [Row(1, 1, "/"), Row(2, 1, "/a"), Row(3, 1, "/"), Row(4, 3, "/a")];
        assert_eq!(visible(&rows, "/a"), Some(2));
        assert_eq!(visible(&rows, "/"), Some(1));
    }

    #[test]
    fn an_unlisted_root_mount_is_no_obstacle() {
        let rows = [Row(5, 4, "/a"), Row(6, 5, "/a/b"), Row(7, 4, "/a/b/c")];
        assert_eq!(visible(&rows, "/a/b/x"), Some(6));
        assert_eq!(visible(&rows, "/c"), None);
    }

    #[test]
    fn a_table_with_a_circle_ends() {
        let rows = [Row(1, 0, "/"), Row(2, 1, "/a"), Row(3, 2, "/a"), Row(2, 3, "/a")];
        assert!(visible(&rows, "/a").is_some());
    }
}
