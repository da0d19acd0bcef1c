//! Single values: paths, names, numbers, and "not given".

use super::ConvertError;
use std::path::{Path, PathBuf};

/// The path as the text that the wire carries.
pub(super) fn text(field: &'static str, path: &Path) -> Result<String, ConvertError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ConvertError::NotUtf8 { field, path: path.into() })
}

/// As [`text`], with "" for a path that is not given.
pub(super) fn optional_text(field: &'static str, path: Option<&PathBuf>) -> Result<String, ConvertError> {
    path.map_or(Ok(String::new()), |path| text(field, path))
}

/// The number in the other side's type.
pub(super) fn number<T, U>(field: &'static str, value: T) -> Result<U, ConvertError>
where
    T: Copy + TryInto<i128>,
    U: TryFrom<i128>,
{
    let value: i128 = value.try_into().unwrap_or(i128::MAX);
    U::try_from(value).map_err(|_| ConvertError::Range { field, value })
}

/// `None` for the zero value of the wire, which means "not given".
pub(super) fn given<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// As [`given`], for a number in the other side's type.
pub(super) fn given_number<T, U>(field: &'static str, value: T) -> Result<Option<U>, ConvertError>
where
    T: Copy + Default + PartialEq + TryInto<i128>,
    U: TryFrom<i128>,
{
    given(value).map(|value| number(field, value)).transpose()
}

/// The name that the OCI runtime specification gives the variant `value`.
pub(super) fn name(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("unit variants serialize as their name, not as {other:?}"),
    }
}

/// The variant that the OCI runtime specification calls `name`.
pub(super) fn named<T: serde::de::DeserializeOwned>(
    field: &'static str,
    name: &str,
) -> Result<T, ConvertError> {
    serde_json::from_value(name.into()).map_err(|_| ConvertError::Unknown { field, value: name.to_owned() })
}

/// Each element converted, or the first error.
pub(super) fn each<'a, T: 'a, U>(
    list: impl IntoIterator<Item = &'a T>,
    convert: impl Fn(&'a T) -> Result<U, ConvertError>,
) -> Result<Vec<U>, ConvertError> {
    list.into_iter().map(convert).collect()
}
