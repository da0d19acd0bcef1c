//! The configuration: defaults, files, environment, options and annotations, each over those before, and where
//! each value comes from.

mod annotations;
mod file;
mod keys;
mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::Value;

use crate::cli::{Global, Machine};
use crate::failure::Failure;
pub(crate) use keys::KEYS;
use keys::Key;
pub(crate) use show::show;

/// The name that stands for a file instead of the usual two.
const FILE_VARIABLE: &str = "VC_CONFIG";

/// Every key's value.
#[derive(Clone, Debug)]
pub(crate) struct Config(BTreeMap<&'static str, Setting>);

#[derive(Clone, Debug, PartialEq)]
struct Setting {
    value: Value,
    origin: Origin,
}

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(&'static str),
    /// An option of the command line.
    Option(&'static str),
    /// An annotation of the container.
    Annotation(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) | Self::Option(name) => f.write_str(name),
            Self::Annotation(name) => write!(f, "annotation {name}"),
        }
    }
}

impl Config {
    /// What files, environment and options say.
    ///
    /// # Errors
    /// For a key that there is not, and for a value that is not of its key's type, with who said so.
    pub(crate) fn load(global: &Global, machine: &Machine) -> Result<Self, Failure> {
        let mut config = Self::defaults();
        for file in file::usual(global.config.clone()) {
            config.take_file(&file)?;
        }
        config.take_variables(|name| std::env::var_os(name))?;
        for setting in &global.set {
            let (name, text) = setting.split_once('=').ok_or_else(|| {
                Failure::message(format!("--set {setting}: write it as KEY=VALUE; `vc config` has the keys"))
            })?;
            let origin = Origin::Option("--set");
            let key = keys::find(name).ok_or_else(|| unknown(name, &origin))?;
            config.set_text(key, text, origin)?;
        }
        for (name, option, text) in machine.settings()? {
            let key = keys::find(name).expect("options name keys that there are");
            config.set_text(key, &text, Origin::Option(option))?;
        }
        Ok(config)
    }

    pub(crate) fn defaults() -> Self {
        let setting =
            |key: &'static Key| (key.name, Setting { value: key.default(), origin: Origin::Default });
        Self(KEYS.iter().map(setting).collect())
    }

    fn take_variables(
        &mut self,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<(), Failure> {
        for key in &KEYS {
            let Some(value) = variable(key.variable) else { continue };
            let origin = Origin::Variable(key.variable);
            let text = value.into_string();
            let text = text.map_err(|_| invalid(key.name, &origin, "it is not UTF-8"))?;
            self.set_text(key, &text, origin)?;
        }
        Ok(())
    }

    /// Sets a key to what a text says, by the key's type.
    fn set_text(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), Failure> {
        let value = match key.default() {
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            Value::Array(_) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
            }
            _ => Some(Value::String(text.to_owned())),
        };
        let wanted = || format!("{text:?} is no {}", key.default().type_str());
        let value = value.ok_or_else(|| invalid(key.name, &origin, wanted()))?;
        self.set(key, value, origin);
        Ok(())
    }

    fn set(&mut self, key: &'static Key, value: Value, origin: Origin) {
        self.0.insert(key.name, Setting { value, origin });
    }

    fn setting(&self, name: &str) -> &Setting {
        self.0.get(name).expect("every key has a value")
    }

    /// The value of a key that is a text.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.setting(name).value.as_str().expect("its type was checked")
    }

    /// The value of a key that is a number.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.setting(name).value.as_integer().expect("its type was checked")
    }

    /// The value of a key that is yes or no.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.setting(name).value.as_bool().expect("its type was checked")
    }

    /// The value of a key that is a list of texts.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let list = self.setting(name).value.as_array().expect("its type was checked");
        list.iter().filter_map(Value::as_str).collect()
    }

    /// Who set a key.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        &self.setting(name).origin
    }

    /// That a key's value cannot be used.
    pub(crate) fn invalid(&self, name: &str, why: impl fmt::Display) -> Failure {
        invalid(name, self.origin(name), why)
    }
}

fn invalid(name: &str, origin: &Origin, why: impl fmt::Display) -> Failure {
    Failure::message(format!("the configuration's {name} ({origin}): {why}"))
}

fn unknown(name: &str, origin: &Origin) -> Failure {
    let (section, _) = name.rsplit_once('.').unwrap_or_default();
    let beside = KEYS.iter().map(Key::parts).filter(|(known, _)| *known == section);
    let beside: Vec<_> = beside.map(|(_, name)| name).collect();
    if beside.is_empty() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.parts().0).collect();
        sections.dedup();
        let sections = sections.join(", ");
        return invalid(name, origin, format!("there is no such section; there are {sections}"));
    }
    invalid(name, origin, format!("there is no such key; section {section} has {}", beside.join(", ")))
}

#[cfg(test)]
mod tests;
