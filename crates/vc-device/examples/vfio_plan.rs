//! Prints which devices of this host could be passed to a machine, group by group, and what keeps the
//! others. Reads sysfs and changes nothing; takes another root than `/sys` as its argument.
#![expect(clippy::print_stdout, reason = "an example that prints")]

use std::collections::BTreeSet;
use std::error::Error;

use vc_device::{
    CdiKinds, ContainerNode, ContainerRole, Moment, Port, Sysfs, VfioMode, VfioPath, VfioPlanError,
    VfioPolicy, VfioWanted, plan_vfio,
};
use vc_types::GuestPath;

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args_os().nth(1).unwrap_or_else(|| "/sys".into());
    let sysfs = Sysfs::new(root);
    let groups = sysfs.iommu_groups()?;
    let functions = sysfs.pci_functions()?;
    println!("{} PCI functions in {} IOMMU groups", functions.len(), groups.len());
    if groups.is_empty() {
        println!("no IOMMU: it is missing, or switched off in the firmware or on the kernel's command line");
        println!("(intel_iommu=on, amd_iommu=on), so nothing can be passed to a machine");
    }
    for group in groups {
        print_group(&sysfs, group)?;
    }
    Ok(())
}

fn print_group(sysfs: &Sysfs, number: u32) -> Result<(), Box<dyn Error>> {
    let path = VfioPath::Group(number);
    let node = ContainerNode { path: GuestPath::new(path.to_string())?, mode: None, uid: None, gid: None };
    let policy = VfioPolicy { cold_plug: None, hot_plug: Some(Port::RootPort), mode: VfioMode::GuestKernel };
    let for_workload = (Moment::Running, ContainerRole::Workload);
    match plan_vfio(&[VfioWanted { path, node }], sysfs, &BTreeSet::new(), policy, for_workload) {
        Ok(plan) => {
            println!("{path}: can be passed");
            for planned in &plan.functions {
                let kind = planned.member.pci().and_then(|function| {
                    let name = CdiKinds::default().name_of(function)?.to_owned();
                    Some(format!(", a {name}"))
                });
                let (function, kind) = (planned.member.function(), kind.unwrap_or_default());
                println!("  {function}{kind}: {:?}", planned.when);
            }
        }
        Err(VfioPlanError::OnlyBridges { .. }) => println!("{path}: only bridges"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
