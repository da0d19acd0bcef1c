//! Each manifest takes the workspace's lints.

/// The complaint about this manifest, unless it has `[lints] workspace = true`, or is a workspace of its own, which has
/// no part in this one's lints.
pub(super) fn complaint(name: &str, text: &str) -> Option<String> {
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            table = line;
            if table == "[workspace]" {
                return None;
            }
        } else if table == "[lints]"
            && line.split(['=', '#']).map(str::trim).take(2).eq(["workspace", "true"])
        {
            return None;
        }
    }
    Some(format!(
        "{name}: needs `[lints]` with `workspace = true`, or the workspace's lints do not hold there"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_takes_the_lints_of_the_workspace() {
        assert_eq!(complaint("a", "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"), None);
        assert_eq!(complaint("a", "[lints]\nworkspace=true # all\n[features]\n"), None);
        assert_eq!(complaint("a", "# Apart.\n[workspace]\n[package]\nname = \"a\"\n"), None);
        let bad = [
            "[package]\nname = \"a\"\n",
            "[lints]\nworkspace = false\n",
            "[lints]\n[dependencies]\nworkspace = true\n",
            "[lints]\n# workspace = true\n",
            "[lints.rust]\nworkspace = true\n",
        ];
        for text in bad {
            assert!(complaint("a", text).is_some(), "{text:?}");
        }
    }
}
