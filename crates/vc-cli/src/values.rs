//! Values of options that are more than a text.

use std::str::FromStr;

use vc_storage::Mount;

/// An environment variable: `K=V`, or `K` for this process's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Env(pub(crate) String);

impl FromStr for Env {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        if name.is_empty() {
            return Err("write it as NAME=VALUE, or NAME to pass on its value here".into());
        }
        if text.contains('=') {
            return Ok(Self(text.to_owned()));
        }
        let value =
            std::env::var(name).map_err(|_| format!("{name} has no value here; write {name}=VALUE"))?;
        Ok(Self(format!("{name}={value}")))
    }
}

/// A user by number, with its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        let number = |text: &str| {
            let help = || format!("{text:?} is no number; names of users and groups are not supported yet");
            text.parse::<u32>().map_err(|_| help())
        };
        Ok(Self { uid: number(uid)?, gid: number(gid)? })
    }
}

/// A mount in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountJson(pub(crate) Mount);

impl FromStr for MountJson {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!("7".parse(), Ok(User { uid: 7, gid: 0 }));
        assert_eq!("7:8".parse(), Ok(User { uid: 7, gid: 8 }));
        for bad in ["", "root", "7:", "7:wheel", "-1", "4294967296"] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variables_have_a_name() {
        assert_eq!("A=b=c".parse(), Ok(Env("A=b=c".into())));
        assert_eq!("A=".parse(), Ok(Env("A=".into())));
        let path = std::env::var("PATH").unwrap();
        assert_eq!("PATH".parse(), Ok(Env(format!("PATH={path}"))));
        assert!("=x".parse::<Env>().is_err());
        assert!("VC_NO_SUCH_VARIABLE".parse::<Env>().is_err());
    }
}
