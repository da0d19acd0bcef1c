//! UpdateContainer: limits of a container that exists.

use super::Container;
use crate::error::CallError;
use crate::resources::limits;
use crate::spec::SpecError;
use oci_spec::runtime::LinuxResources;
use vc_agent_protocol::oci;

impl Container {
    /// Sets the limits that are given; all others stay.
    pub(crate) fn update(&self, resources: &oci::LinuxResources) -> Result<(), CallError> {
        let resources = LinuxResources::try_from(resources).map_err(SpecError::from)?;
        if resources.devices().iter().flatten().next().is_some() {
            // A program that the kernel asks cannot be loosened by another.
            return Err(SpecError::Unsupported("device rules in an update").into());
        }
        let limits = limits(&resources, &self.cgroup.quota()).map_err(SpecError::from)?;
        Ok(self.cgroup.limit(&limits)?)
    }
}
