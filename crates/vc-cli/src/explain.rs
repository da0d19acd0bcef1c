//! `vc explain`: how the storage of a container would reach its machine, and why.

use std::io::Write;

use oci_spec::runtime::Spec;
use vc_storage::{DirectVolumes, SharedFs, Surroundings};

use crate::cli::{Explain, Global, Machine};
use crate::config::Config;
use crate::failure::Failure;
use crate::machine::sharing;
use crate::rootfs;
use crate::run::load_bundle;

/// Prints the plan.
pub(crate) fn explain(global: &Global, options: &Explain) -> Result<(), Failure> {
    let spec = match &options.rootfs.bundle {
        Some(bundle) => load_bundle(bundle)?,
        None => Spec::default(),
    };
    let id = "container".parse().expect("a plain name");
    let volumes = DirectVolumes::below(&options.direct_volumes);
    let root = rootfs::of_options(&options.rootfs, &spec)?;
    let around = Surroundings { direct_volumes: Some(&volumes), ..Surroundings::default() };
    let annotations = spec.annotations().iter().flatten();
    let annotations = annotations.map(|(name, value)| (name.as_str(), value.as_str()));
    let config = Config::load(global, &Machine::default())?.with_annotations(annotations)?;
    let shared_fs = if options.no_shared_fs { SharedFs::None } else { sharing(&config)?.shared_fs };
    let policy = rootfs::policy(shared_fs, &spec)?;
    let plan = rootfs::storage(id, root, &spec, policy, &around)?.plan;
    let text = if options.json {
        serde_json::to_string_pretty(&plan).map_err(|error| Failure::step("write the plan", error))?
    } else {
        plan.to_string()
    };
    let printed = writeln!(std::io::stdout().lock(), "{text}");
    printed.map_err(|error| Failure::step("print the plan", error))
}
