//! Hooks.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{Hook, Hooks};
use std::path::PathBuf;

impl TryFrom<&Hooks> for oci::Hooks {
    type Error = ConvertError;

    fn try_from(hooks: &Hooks) -> Result<Self, ConvertError> {
        let list = |hooks: &Option<Vec<Hook>>| value::each(hooks.iter().flatten(), hook_to_wire);
        Ok(Self {
            prestart: list(hooks.prestart())?,
            poststart: list(hooks.poststart())?,
            poststop: list(hooks.poststop())?,
            create_runtime: list(hooks.create_runtime())?,
            create_container: list(hooks.create_container())?,
            start_container: list(hooks.start_container())?,
            ..Self::default()
        })
    }
}

impl From<&oci::Hooks> for Hooks {
    fn from(wire: &oci::Hooks) -> Self {
        let list = |hooks: &[oci::Hook]| value::given(hooks.iter().map(hook_from_wire).collect::<Vec<_>>());
        let mut hooks = Self::default();
        hooks
            .set_prestart(list(&wire.prestart))
            .set_poststart(list(&wire.poststart))
            .set_poststop(list(&wire.poststop))
            .set_create_runtime(list(&wire.create_runtime))
            .set_create_container(list(&wire.create_container))
            .set_start_container(list(&wire.start_container));
        hooks
    }
}

fn hook_to_wire(hook: &Hook) -> Result<oci::Hook, ConvertError> {
    Ok(oci::Hook {
        path: value::text("hooks.path", hook.path())?,
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().unwrap_or_default(),
        ..oci::Hook::default()
    })
}

fn hook_from_wire(wire: &oci::Hook) -> Hook {
    let mut hook = Hook::default();
    hook.set_path(PathBuf::from(&wire.path))
        .set_args(value::given(wire.args.clone()))
        .set_env(value::given(wire.env.clone()))
        .set_timeout(value::given(wire.timeout));
    hook
}
