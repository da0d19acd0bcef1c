//! Annotations of a container that set keys, as far as the configuration allows it.

use super::keys::KEYS;
use super::{Config, Origin};
use crate::failure::Failure;

/// What Kata's annotations about the configuration begin with.
const PREFIX: &str = "io.katacontainers.config.";

/// What others understand: vc-storage.
const ELSEWHERE: [&str; 1] = ["io.katacontainers.config.runtime.disable_guest_empty_dir"];

impl Config {
    /// The configuration with what a container's annotations say.
    ///
    /// # Errors
    /// For an annotation that sets what there is not or what annotations may not set, and for a value of the wrong
    /// type: a container never gets another machine than it asks for.
    pub(crate) fn with_annotations<'a>(
        mut self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Failure> {
        let mut asked: Vec<_> = annotations
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !ELSEWHERE.contains(name))
            .collect();
        asked.sort_unstable();
        for (name, value) in asked {
            let Some(key) = KEYS.iter().find(|key| key.annotation == Some(name)) else {
                return Err(Failure::message(format!(
                    "no annotation {name} is known; `vc config` has the keys"
                )));
            };
            let (_, short) = key.parts();
            if !self.list("hypervisor.qemu.enable_annotations").contains(&short) {
                return Err(Failure::message(format!(
                    "the annotation {name} is not allowed here; enable_annotations in the configuration would have to list {short:?}"
                )));
            }
            self.set_text(key, value, Origin::Annotation(name.to_owned()))?;
        }
        Ok(self)
    }
}
