//! Configuration files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{self, Key};
use super::{Config, FILE_VARIABLE, Origin, invalid, unknown};
use crate::failure::Failure;

/// The longest file that is read, in bytes.
const MOST: u64 = 1 << 20;

/// A file, and whether it has to be there.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    required: bool,
}

/// The files that are read, the one that wins last: that of the host, then that of the user; or the one that is named
/// instead of both.
pub(super) fn usual(named: Option<PathBuf>) -> Vec<Source> {
    if let Some(path) = named.or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from)) {
        return vec![Source { path, required: true }];
    }
    let optional = |path| Source { path, required: false };
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let own = home.map(|dir| dir.join("vc/config.toml"));
    std::iter::once("/etc/vc/config.toml".into()).chain(own).map(optional).collect()
}

impl Config {
    pub(super) fn take_file(&mut self, source: &Source) -> Result<(), Failure> {
        let Some(text) = read(source)? else { return Ok(()) };
        let table = text.parse::<Table>().map_err(|error| {
            let line =
                error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            let why = format!("line {line}: {}", error.message());
            Failure::message(format!("could not read the configuration {}: {why}", source.path.display()))
        })?;
        self.take_table(&table, "", &Origin::File(source.path.clone()))
    }

    fn take_table(&mut self, table: &Table, section: &str, origin: &Origin) -> Result<(), Failure> {
        for (name, value) in table {
            let name = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match (keys::find(&name), value) {
                (Some(key), value) => self.take_value(key, value, origin.clone())?,
                (None, Value::Table(inner)) => self.take_table(inner, &name, origin)?,
                (None, _) => return Err(unknown(&name, origin)),
            }
        }
        Ok(())
    }

    fn take_value(&mut self, key: &'static Key, value: &Value, origin: Origin) -> Result<(), Failure> {
        let wanted = key.default();
        if !wanted.same_type(value) {
            let why =
                format!("it should be of type {}, and is of type {}", wanted.type_str(), value.type_str());
            return Err(invalid(key.name, &origin, why));
        }
        if value.as_array().is_some_and(|list| list.iter().any(|part| !part.is_str())) {
            return Err(invalid(key.name, &origin, "it should be a list of strings"));
        }
        self.set(key, value.clone(), origin);
        Ok(())
    }
}

fn read(source: &Source) -> Result<Option<String>, Failure> {
    let read = fs::metadata(&source.path).and_then(|meta| {
        if meta.len() > MOST {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            fs::read_to_string(&source.path)
        }
    });
    match read {
        Ok(text) => Ok(Some(text)),
        Err(error) if absent(&error) && !source.required => Ok(None),
        Err(error) => Err(step(&source.path, error)),
    }
}

/// A user's directory may be one that others, such as root in a user namespace, cannot enter.
fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

fn step(path: &Path, error: io::Error) -> Failure {
    Failure::step(format!("read the configuration {}", path.display()), error)
}
