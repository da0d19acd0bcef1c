//! The current version has a heading in the change log.

/// The complaint, unless `text` has a heading `## VERSION`, whatever stands behind it.
pub(super) fn complaints(text: &str, version: &str) -> Option<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    let is_there = headings.into_iter().any(|heading| heading.split_whitespace().next() == Some(version));
    (!is_there).then(|| format!("CHANGELOG.md: no heading `## {version}`, the current version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_version_must_have_a_heading() {
        assert_eq!(complaints("# Changes\n\n## 0.2.0 (unreleased)\n", "0.2.0"), None);
        for text in ["", "## 0.1.0\n", "## 0.2.0-rc1\n", "0.2.0\n"] {
            assert!(complaints(text, "0.2.0").is_some(), "{text:?}");
        }
    }
}
