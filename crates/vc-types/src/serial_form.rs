//! How the vocabulary is written to a record and read back: as its text, checked again on the way in.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::{
    Bdf, ContainerId, DeviceId, DeviceNumber, ExecId, GuestPath, HostPath, PciPath, PciSlot, SandboxId,
};

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Bdf, ContainerId, DeviceId, DeviceNumber, ExecId, PciPath, PciSlot, SandboxId);

impl Serialize for GuestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A host's path may be no UTF-8; it is then a list of its bytes.
impl Serialize for HostPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_path().to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.as_path().as_os_str().as_bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for HostPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = HostPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an absolute path, as text or as a list of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HostPath, E> {
        HostPath::new(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<HostPath, A::Error> {
        let mut path = Vec::new();
        while let Some(byte) = bytes.next_element()? {
            path.push(byte);
        }
        HostPath::new(OsString::from_vec(path)).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fmt::Debug;

    fn round<T: Serialize + for<'de> Deserialize<'de> + PartialEq + Debug>(value: &T, text: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), text);
        assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
    }

    #[test]
    fn values_are_written_as_their_text_and_read_back() {
        round(&"web-1".parse::<ContainerId>().unwrap(), r#""web-1""#);
        round(&"0000:3b:00.1".parse::<Bdf>().unwrap(), r#""0000:3b:00.1""#);
        round(&"259:300".parse::<DeviceNumber>().unwrap(), r#""259:300""#);
        round(&"08.1/00".parse::<PciPath>().unwrap(), r#""08.1/00""#);
        round(&GuestPath::new("/a b").unwrap(), r#""/a b""#);
        round(&HostPath::new("/a\"b").unwrap(), r#""/a\"b""#);
        round(&HostPath::new(OsStr::from_bytes(b"/\xff")).unwrap(), "[47,255]");
    }

    #[test]
    fn what_is_read_is_checked_again() {
        assert!(serde_json::from_str::<ContainerId>(r#""../x""#).is_err());
        assert!(serde_json::from_str::<GuestPath>(r#""a""#).is_err());
        for bad in [r#""a""#, r#""/a/..""#, "[47,0]", "[]", "[47,256]", "7", "null"] {
            assert!(serde_json::from_str::<HostPath>(bad).is_err(), "{bad}");
        }
    }
}
