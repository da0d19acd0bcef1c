//! Each source file says in its first line what it is for.

/// The complaint about this file, unless it starts with `//!` and a sentence.
pub(super) fn complaint(name: &str, text: &str) -> Option<String> {
    let purpose = text.lines().next().and_then(|line| line.strip_prefix("//!"));
    let says_something = purpose.is_some_and(|purpose| !purpose.trim().is_empty());
    (!says_something).then(|| format!("{name}:1: a source file starts with `//!` and what it is for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_file_starts_with_its_purpose() {
        assert_eq!(complaint("a.rs", "//! Parses a.\n"), None);
        for text in
            ["", "use std::fs;\n", "\n//! Late.\n", "//!\n//! Late.\n", "// No doc.\n", "/// An item's.\n"]
        {
            assert_eq!(complaint("a.rs", text).unwrap().split(' ').next(), Some("a.rs:1:"), "{text:?}");
        }
    }
}
