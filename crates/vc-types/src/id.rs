//! Ids: checked once here, so that every other crate may use them as file names.

use std::fmt;
use std::str::FromStr;

/// What an id of one kind may be.
struct Rules {
    /// The longest, in bytes.
    most: usize,
    /// What it may hold besides letters and digits.
    also: &'static str,
    /// Whether a digit may come first.
    digit_first: bool,
}

/// 128 bytes leave room for a prefix and a suffix within `NAME_MAX` (255).
const FILE_NAME: Rules = Rules { most: 128, also: "_.+-", digit_first: true };

/// QEMU's rules: an `id` starts with a letter and has no `+`; a block node's name has 31 characters.
const DEVICE: Rules = Rules { most: 31, also: "_.-", digit_first: false };

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is too long.
    #[error("an id of this kind has at most {most} characters, this one has {len}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        most: usize,
    },
    /// The text starts with something that no id of its kind starts with.
    #[error("an id of this kind must not start with {0:?}")]
    Start(char),
    /// The text has a character that no id of its kind has.
    #[error("an id of this kind must not contain {0:?}")]
    Char(char),
}

fn check(text: &str, rules: &Rules) -> Result<(), InvalidId> {
    let first = text.chars().next().ok_or(InvalidId::Empty)?;
    if text.len() > rules.most {
        return Err(InvalidId::TooLong { len: text.len(), most: rules.most });
    }
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || rules.also.contains(*c))) {
        return Err(InvalidId::Char(c));
    }
    if !(first.is_ascii_alphabetic() || rules.digit_first && first.is_ascii_digit()) {
        return Err(InvalidId::Start(first));
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $rules:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check(text, &$rules)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id! {
    /// Names one sandbox: one machine and the containers in it.
    ///
    /// 1 to 128 characters of `A-Z a-z 0-9 _ . + -`, the first a letter or a digit; so it is always a
    /// plain file name.
    SandboxId, FILE_NAME
}
id! {
    /// Names one container within its sandbox.
    ///
    /// 1 to 128 characters of `A-Z a-z 0-9 _ . + -`, the first a letter or a digit; so it is always a
    /// plain file name.
    ContainerId, FILE_NAME
}
id! {
    /// Names one process within its container.
    ///
    /// 1 to 128 characters of `A-Z a-z 0-9 _ . + -`, the first a letter or a digit; so it is always a
    /// plain file name.
    ExecId, FILE_NAME
}
id! {
    /// Names one device of a machine.
    ///
    /// 1 to 31 characters of `A-Z a-z 0-9 _ . -`, the first a letter: what a hypervisor takes as the
    /// name of a device and of its image.
    DeviceId, DEVICE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_plain_file_names() {
        for good in ["a", "0", "web-1", "a.b_c+d", &"x".repeat(128)] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
        let cases = [
            ("", InvalidId::Empty),
            (".", InvalidId::Start('.')),
            ("..", InvalidId::Start('.')),
            ("-rf", InvalidId::Start('-')),
            ("a/b", InvalidId::Char('/')),
            ("a b", InvalidId::Char(' ')),
            ("a\0", InvalidId::Char('\0')),
            ("ä", InvalidId::Char('ä')),
        ];
        for (bad, why) in cases {
            assert_eq!(bad.parse::<ContainerId>(), Err(why), "{bad:?}");
        }
        assert_eq!("x".repeat(129).parse::<ContainerId>(), Err(InvalidId::TooLong { len: 129, most: 128 }));
    }

    #[test]
    fn device_ids_fit_a_block_node() {
        assert_eq!("disk-0".parse::<DeviceId>().unwrap().as_str(), "disk-0");
        assert_eq!("0d".parse::<DeviceId>(), Err(InvalidId::Start('0')));
        assert_eq!("d+".parse::<DeviceId>(), Err(InvalidId::Char('+')));
        assert!("x".repeat(31).parse::<DeviceId>().is_ok());
        assert!("x".repeat(32).parse::<DeviceId>().is_err());
    }

    proptest! {
        #[test]
        fn no_accepted_id_can_leave_its_directory(text in "\\PC*") {
            if let Ok(id) = text.parse::<SandboxId>() {
                let joined = std::path::Path::new("/state").join(id.as_str());
                prop_assert_eq!(joined.parent(), Some(std::path::Path::new("/state")));
                prop_assert_eq!(joined.components().count(), 3);
            }
        }
    }
}
