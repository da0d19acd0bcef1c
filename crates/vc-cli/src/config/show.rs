//! `vc config`: the effective configuration, as a file that could be used, with the origin of each value.

use super::{Config, KEYS};
use crate::failure::Failure;
use crate::oci::state::print;

/// Prints it.
pub(crate) fn show(config: &Config) -> Result<(), Failure> {
    print(&text(config))
}

pub(super) fn text(config: &Config) -> String {
    let mut text = String::new();
    let mut last = "";
    for key in &KEYS {
        let (section, name) = key.parts();
        if section != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            text += &format!("{gap}[{section}]\n");
            last = section;
        }
        let setting = config.setting(key.name);
        text += &format!(
            "# {} ({})\n{name} = {}  # {}\n",
            key.about, key.variable, setting.value, setting.origin
        );
    }
    text
}
