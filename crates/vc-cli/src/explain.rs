//! `vc explain`: how the storage of a container would reach its machine, and why.

use std::io::Write;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use vc_container::storage_request;
use vc_storage::{
    DirectVolumes, LayerSource, Layers, MountPolicy, Rootfs, Surroundings, Upper, gather, plan, rootfs_at,
};
use vc_types::HostPath;

use crate::cli::{self, Explain};
use crate::failure::Failure;
use crate::run::load_bundle;

/// Prints the plan.
pub(crate) fn explain(options: &Explain) -> Result<(), Failure> {
    let spec = match &options.rootfs.bundle {
        Some(bundle) => load_bundle(bundle)?,
        None => Spec::default(),
    };
    let rootfs = rootfs(&options.rootfs, &spec)?;
    let id = "container".parse().expect("a plain name");
    let request =
        storage_request(id, rootfs, &spec).map_err(|error| Failure::step("read the bundle", error))?;
    let direct_volumes = DirectVolumes::below(&options.direct_volumes);
    let around = Surroundings { direct_volumes: Some(&direct_volumes), ..Surroundings::default() };
    let (facts, _) = gather(&request, &around).map_err(|error| Failure::step("look at the host", error))?;
    let policy = policy(options, &spec)?;
    let plan = plan(&request, &facts, policy).map_err(|error| Failure::step("plan this container", error))?;
    let text = if options.json {
        serde_json::to_string_pretty(&plan).map_err(|error| Failure::step("write the plan", error))?
    } else {
        plan.to_string()
    };
    let printed = writeln!(std::io::stdout().lock(), "{text}");
    printed.map_err(|error| Failure::step("print the plan", error))
}

fn policy(options: &Explain, spec: &Spec) -> Result<MountPolicy, Failure> {
    let annotations = spec.annotations().iter().flatten();
    let policy = MountPolicy::new(!options.no_shared_fs);
    let policy = policy.with_annotations(annotations.map(|(name, value)| (name.as_str(), value.as_str())));
    policy.map_err(|error| Failure::step("read the annotations", error))
}

/// The root that the command line names, or else the bundle's.
fn rootfs(options: &cli::Rootfs, spec: &Spec) -> Result<Rootfs, Failure> {
    if !options.layers.is_empty() {
        let image = |path: &PathBuf| {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let image = HostPath::new(absolute)?;
            Ok(LayerSource::Image { image, devices: Vec::new(), verity: None })
        };
        let layers = options.layers.iter().map(image).collect::<Result<_, vc_types::InvalidPath>>();
        let layers = layers.map_err(|error| Failure::step("use the layers", error))?;
        return Ok(Rootfs::Layers(Layers {
            layers,
            upper: Upper::Memory { unused: None },
            options: Vec::new(),
        }));
    }
    if !options.mounts.is_empty() {
        let mounts: Vec<_> = options.mounts.iter().map(|mount| mount.0.clone()).collect();
        return Rootfs::of_mounts(&mounts).map_err(|error| Failure::step("read the root file system", error));
    }
    let bundle = options.bundle.as_deref().unwrap_or(Path::new("."));
    let root = spec.root().as_ref().map_or_else(|| PathBuf::from("rootfs"), |root| root.path().clone());
    let root = bundle.join(root);
    let step = || format!("use the bundle's root file system {}", root.display());
    rootfs_at(&root).map_err(|error| Failure::step(step(), error))
}
