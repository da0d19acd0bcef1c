//! What the wire has no place for: found, and refused.

use super::ConvertError;
use crate::oci;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::Serialize;
use serde_json::Value;

/// A part of the OCI runtime specification that travels alone.
pub trait Travels: sealed::Part {}

impl<T: sealed::Part> Travels for T {}

mod sealed {
    use super::*;

    pub trait Part: Serialize + Sized {
        /// Its message.
        type Message;

        fn send(&self) -> Result<Self::Message, ConvertError>;
        fn receive(message: &Self::Message) -> Result<Self, ConvertError>;
    }

    macro_rules! travels {
        ($($part:ident),+) => {$(
            impl Part for $part {
                type Message = oci::$part;

                fn send(&self) -> Result<Self::Message, ConvertError> {
                    self.try_into()
                }

                fn receive(message: &Self::Message) -> Result<Self, ConvertError> {
                    message.try_into()
                }
            }
        )+};
    }
    travels!(Spec, Process, LinuxResources);
}

/// The message of `part`, if nothing of it is lost on the wire.
///
/// # Errors
/// [`ConvertError::NotCarried`] with all fields that would be lost; any other [`ConvertError`] when
/// `part` has a value that cannot be carried at all.
pub fn to_wire<T: Travels>(part: &T) -> Result<T::Message, ConvertError> {
    let message = part.send()?;
    let fields = lost(part, &message)?;
    if fields.is_empty() { Ok(message) } else { Err(ConvertError::NotCarried { fields }) }
}

/// The fields of `part` that are lost on the wire, in the notation of `config.json`
/// (`process.user.umask`, `mounts[2].uidMappings`); empty when all of them arrive.
///
/// A field whose value is a zero, an empty text or an empty list is not reported: it reads as "not
/// given" at the other end, which means the same.
///
/// # Errors
/// [`ConvertError`] when `part` has a value that cannot be carried at all.
pub fn fields_lost<T: Travels>(part: &T) -> Result<Vec<String>, ConvertError> {
    lost(part, &part.send()?)
}

fn lost<T: Travels>(part: &T, message: &T::Message) -> Result<Vec<String>, ConvertError> {
    let mut lost = Vec::new();
    compare(String::new(), &json(part), &json(&T::receive(message)?), &mut lost);
    Ok(lost)
}

fn json(part: &impl Serialize) -> Value {
    serde_json::to_value(part).expect("a specification of UTF-8 texts is JSON")
}

fn compare(path: String, sent: &Value, arrived: &Value, lost: &mut Vec<String>) {
    match (sent, arrived) {
        (Value::Object(sent), arrived) if arrived.is_object() || is_empty(arrived) => {
            for (key, value) in sent {
                let dot = if path.is_empty() { "" } else { "." };
                compare(format!("{path}{dot}{key}"), value, &arrived[key.as_str()], lost);
            }
        }
        (Value::Array(sent), Value::Array(arrived)) if sent.len() == arrived.len() => {
            for (index, (sent, arrived)) in sent.iter().zip(arrived).enumerate() {
                // The elements of a set come in any order; sets hold texts, and texts are carried.
                if !sent.is_string() {
                    compare(format!("{path}[{index}]"), sent, arrived, lost);
                }
            }
        }
        _ if sent == arrived || (is_empty(sent) && is_empty(arrived)) => {}
        _ => lost.push(path),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
