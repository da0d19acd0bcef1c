//! Templates of containerd's mount manager: `{{ mount 1 }}`, `{{ overlay 0 2 }}`, `{{ source 0 }}`.
//!
//! Where an earlier mount will be is not known while planning. So a template becomes a mark that no path
//! can contain, the text is read as any other option, and marks are found again in the paths.

use std::path::Path;

use crate::mount::Mount;

/// Stands around the number of a mount. No path has one (path_resolution(7)).
const MARK: char = '\0';

/// Why a template cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is not one of the known ones.
    #[error("{0:?} is none of {{{{ mount N }}}}, {{{{ overlay FIRST LAST }}}} and {{{{ source N }}}}")]
    Unknown(String),
    /// Its end is missing.
    #[error("{0:?} has a template without an end")]
    Open(String),
    /// It names a mount that does not stand before its own.
    #[error("there is no mount {mount} before it")]
    NoMount {
        /// The number.
        mount: usize,
    },
    /// There is a template where nobody resolves any.
    #[error("{0:?} has a template, but the mount's type has no prefix format/")]
    NotFormatted(String),
    /// A text has a NUL byte.
    #[error("{0:?} has a NUL byte")]
    Nul(String),
    /// Something is joined to a mount that is no path below it.
    #[error("{0:?} is no path below an earlier mount")]
    Below(String),
}

/// A directory that an option names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path of the host.
    Host(std::path::PathBuf),
    /// A directory within an earlier mount.
    In {
        /// Which mount.
        mount: usize,
        /// The directory, without a slash at either end; empty for all of it.
        below: String,
    },
}

/// Resolves the templates of `text`, which may refer to the mounts of `before`.
pub(super) fn expand(text: &str, format: bool, before: &[Mount]) -> Result<String, TemplateError> {
    if text.contains(MARK) {
        return Err(TemplateError::Nul(text.to_owned()));
    }
    if !format {
        let has_template = text.contains("{{");
        return if has_template {
            Err(TemplateError::NotFormatted(text.to_owned()))
        } else {
            Ok(text.to_owned())
        };
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((plain, template)) = rest.split_once("{{") {
        let (template, after) =
            template.split_once("}}").ok_or_else(|| TemplateError::Open(text.to_owned()))?;
        expanded += plain;
        expanded += &resolve(template, before)?;
        rest = after;
    }
    Ok(expanded + rest)
}

/// Where a path leads that was expanded before.
pub(super) fn place(path: &Path) -> Result<Place, TemplateError> {
    // Options are text, and so are the paths in them.
    let text = path.to_string_lossy();
    if !text.contains(MARK) {
        return Ok(Place::Host(path.into()));
    }
    let refused = || TemplateError::Below(shown(&text));
    let (number, below) =
        text.strip_prefix(MARK).and_then(|rest| rest.split_once(MARK)).ok_or_else(refused)?;
    let mount = number.parse().map_err(|_| refused())?;
    let is_below = below.is_empty() || below.starts_with('/');
    let is_plain = below.split('/').all(|name| name != "." && name != "..");
    if !is_below || !is_plain || below.contains(MARK) {
        return Err(refused());
    }
    Ok(Place::In { mount, below: below.trim_matches('/').to_owned() })
}

/// Expanded text in a message: a mark is a backtick.
pub(super) fn shown(text: &str) -> String {
    text.replace(MARK, "`")
}

fn resolve(template: &str, before: &[Mount]) -> Result<String, TemplateError> {
    let words: Vec<&str> = template.split_whitespace().collect();
    let unknown = || TemplateError::Unknown(format!("{{{{{template}}}}}"));
    let number = |word: &str| -> Result<usize, TemplateError> {
        let mount = word.parse().map_err(|_| unknown())?;
        if mount < before.len() { Ok(mount) } else { Err(TemplateError::NoMount { mount }) }
    };
    let mark = |mount: usize| format!("{MARK}{mount}{MARK}");
    match words[..] {
        ["mount", mount] => Ok(mark(number(mount)?)),
        ["source", mount] => Ok(before[number(mount)?].source.clone()),
        ["overlay", first, last] => {
            let (first, last) = (number(first)?, number(last)?);
            let marks: Vec<String> = if first <= last {
                (first..=last).map(mark).collect()
            } else {
                (last..=first).rev().map(mark).collect()
            };
            Ok(marks.join(":"))
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(count: usize) -> Vec<Mount> {
        let mount = |n| Mount { kind: "erofs".into(), source: format!("/layers/{n}"), options: Vec::new() };
        (0..count).map(mount).collect()
    }

    #[test]
    fn several_templates_in_one_option_keep_their_order() {
        let expanded =
            expand("lowerdir={{ mount 1 }}:{{mount 0}}:{{  overlay 3 2 }}", true, &mounts(4)).unwrap();
        assert_eq!(expanded, "lowerdir=\x001\0:\x000\0:\x003\0:\x002\0");
        assert_eq!(expand("{{ source 1 }}/x", true, &mounts(2)).unwrap(), "/layers/1/x");
    }

    #[test]
    fn a_directory_within_a_mount_stays_within_it() {
        let within = |text: &str| place(Path::new(&expand(text, true, &mounts(1)).unwrap()));
        assert_eq!(within("{{ mount 0 }}/upper"), Ok(Place::In { mount: 0, below: "upper".into() }));
        assert_eq!(within("{{ mount 0 }}"), Ok(Place::In { mount: 0, below: String::new() }));
        for bad in ["{{ mount 0 }}upper", "{{ mount 0 }}/../x", "{{ mount 0 }}/./x", "/a{{ mount 0 }}"] {
            assert!(matches!(within(bad), Err(TemplateError::Below(_))), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_told() {
        let mounts = mounts(2);
        let error = |text: &str| expand(text, true, &mounts).unwrap_err();
        assert_eq!(error("{{ overlay 0 2 }}"), TemplateError::NoMount { mount: 2 });
        assert!(matches!(error("{{ mount 0"), TemplateError::Open(_)));
        for bad in [
            "{{ mount }}",
            "{{ mount -1 }}",
            "{{ target 0 }}",
            "{{ overlay 0 }}",
            "{{}}",
            "{{ mount 99999999999999999999 }}",
        ] {
            assert!(matches!(error(bad), TemplateError::Unknown(_)), "{bad}");
        }
        assert!(matches!(error("a\0b"), TemplateError::Nul(_)));
        assert!(matches!(expand("{{ mount 0 }}", false, &mounts), Err(TemplateError::NotFormatted(_))));
    }
}
