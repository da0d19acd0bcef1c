//! The initial RAM disk: `/init`, the kernel's modules, and the two device nodes that a program needs to start at all.

use crate::archive::{Archive, TooLargeError};
use crate::modules::ModuleSet;

const MODULES: &str = "lib/modules";

/// Packs the initrd.
///
/// `vc-guest` relies on this: `/lib/modules` has every module as `NAME.ko`, uncompressed; `modules.boot` names what each
/// start loads, in order; `modules.dep` has what depends on what, with paths relative to `/lib/modules`; `modules.builtin`
/// names those that the kernel has in itself.
pub(crate) fn pack(init: &[u8], modules: &ModuleSet) -> Result<Vec<u8>, TooLargeError> {
    let mut archive = Archive::default();
    for directory in ["dev", "lib", MODULES, "proc", "run", "sys", "tmp"] {
        archive.directory(directory)?;
    }
    // Opened by the kernel as /init's standard streams; without them Rust's runtime aborts before main.
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.device("dev/null", 0o666, (1, 3))?;
    archive.file("init", 0o755, init)?;
    archive.file(&format!("{MODULES}/modules.boot"), 0o644, modules.boot_list().as_bytes())?;
    archive.file(&format!("{MODULES}/modules.dep"), 0o644, modules.dependency_list().as_bytes())?;
    archive.file(&format!("{MODULES}/modules.builtin"), 0o644, modules.built_in_list().as_bytes())?;
    for module in &modules.modules {
        archive.file(&format!("{MODULES}/{}.ko", module.name), 0o644, &module.data)?;
    }
    Ok(archive.finish())
}
