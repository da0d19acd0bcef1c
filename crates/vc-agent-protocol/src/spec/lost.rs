//! Which fields of a specification the wire has no place for.

use super::ConvertError;
use oci_spec::runtime::Spec;
use serde_json::Value;

/// The fields of `spec` that are lost on the wire, in the notation of `config.json`
/// (`process.user.umask`, `mounts[2].uidMappings`); empty when all of them arrive.
///
/// A field whose value is a zero, an empty text or an empty list is not reported: it reads as "not
/// given" at the other end, which means the same.
///
/// # Errors
/// [`ConvertError`] when `spec` has a value that cannot be carried at all.
pub fn fields_lost(spec: &Spec) -> Result<Vec<String>, ConvertError> {
    let arrived = Spec::try_from(&crate::oci::Spec::try_from(spec)?)?;
    let mut lost = Vec::new();
    compare(String::new(), &json(spec), &json(&arrived), &mut lost);
    Ok(lost)
}

fn json(spec: &Spec) -> Value {
    serde_json::to_value(spec).expect("a specification of UTF-8 texts is JSON")
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
