//! `vc recover`: removes what owners left that were killed.

use std::path::Path;

use rustix::process::{Pid, test_kill_process};

use super::control::delete;
use super::record::Status;
use super::root::Root;
use super::state::{Now, print};
use crate::failure::Failure;

/// Removes every container whose owner died, and what a command left that was killed while it made or removed one.
/// Says which. Containers that stopped by themselves stay: whoever made them has not deleted them yet.
///
/// # Errors
/// The first failure, once all were tried.
pub(crate) fn recover(root: &Root) -> Result<(), Failure> {
    let mut first = None;
    for id in root.ids()? {
        let Some(dir) = root.find(&id) else { continue };
        let done = Now::of(&dir).and_then(|now| {
            if now.owned || now.record.status == Status::Stopped {
                return Ok(());
            }
            delete(root, &id, true)?;
            print(&format!("{id}\n"))
        });
        if let Err(failure) = done {
            tracing::warn!("{}", failure.for_engines());
            first = first.or(Some(failure));
        }
    }
    // One whose maker has just ended has another name by now.
    for unfinished in root.unfinished()?.iter().filter(|dir| !maker_lives(dir) && dir.exists()) {
        let removed = super::remove::remove_tree(unfinished);
        first = first.or(removed.and_then(|()| print(&format!("{}\n", unfinished.display()))).err());
    }
    first.map_or(Ok(()), Err)
}

/// Whether the command lives whose pid the name of the directory has (see `Root::reserve`). A number that is used again
/// only means that the next `vc recover` removes it.
fn maker_lives(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix("-gone").unwrap_or(&name);
    let pid = name.rsplit('-').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    pid.is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_killed_command_left_is_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::of(Some(temp.path())).unwrap();
        // No pid is as high (proc(5), pid_max).
        let names = [".a-4194305", ".a-4194305-gone", &format!(".b-{}", std::process::id()), "other"];
        for name in names {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        recover(&root).unwrap_err();
        let left = |name: &str| temp.path().join(name).exists();
        assert_eq!(
            names.map(left),
            [false, false, true, true],
            "a directory without a record is told of, and stays"
        );
    }
}
