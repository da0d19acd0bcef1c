//! Ids: checked once here, so that every other crate may use them as file names.

use std::fmt;
use std::str::FromStr;

/// The longest id accepted, in bytes. Leaves room for a prefix and a suffix within `NAME_MAX` (255).
const MAX_LEN: usize = 128;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than 128 bytes.
    #[error("an id has at most {MAX_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// The text starts with something other than a letter or a digit.
    #[error("an id starts with a letter or a digit, not with {0:?}")]
    Start(char),
    /// The text has a character outside `A-Z a-z 0-9 _ . + -`.
    #[error("an id consists of letters, digits and _ . + -, not of {0:?}")]
    Char(char),
}

fn check(text: &str) -> Result<(), InvalidId> {
    let first = text.chars().next().ok_or(InvalidId::Empty)?;
    if text.len() > MAX_LEN {
        return Err(InvalidId::TooLong(text.len()));
    }
    if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.+-".contains(*c))) {
        return Err(InvalidId::Char(c));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(InvalidId::Start(first));
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 128 characters of `A-Z a-z 0-9 _ . + -`, the first a letter or a digit; so it is
        /// always a plain file name.
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
                check(text)?;
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
    SandboxId
}
id! {
    /// Names one container within its sandbox.
    ContainerId
}
id! {
    /// Names one process within its container.
    ExecId
}
id! {
    /// Names one device of a machine, as QMP's `id` does.
    DeviceId
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
        assert_eq!("x".repeat(129).parse::<ContainerId>(), Err(InvalidId::TooLong(129)));
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
