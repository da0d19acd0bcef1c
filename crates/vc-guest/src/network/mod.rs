//! The guest's network: interfaces, routes, neighbours and packet filters, as the host has them.

mod error;
mod interface;
mod iptables;
mod neighbour;
mod netlink;
mod route;
mod text;

use crate::modules::{ModuleError, ModuleLoader};
pub use error::NetworkError;
pub(crate) use interface::{list_interfaces, loopback_up, update_interface};
pub(crate) use iptables::{restore as set_iptables, save as get_iptables};
pub(crate) use neighbour::add_neighbours;
pub(crate) use route::{list_routes, update_routes};

/// Loads the drivers that an interface may need; what the image lacks the kernel may have built in.
pub(crate) fn load_drivers(modules: &ModuleLoader) -> Result<(), ModuleError> {
    modules.load_if_known(&["virtio_net", "af_packet"])
}
