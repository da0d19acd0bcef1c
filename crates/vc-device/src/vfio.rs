//! What of the host a container gets for itself, and when it is plugged.

mod annotation;
mod path;
mod plan;
mod policy;

pub use annotation::{AnnotationError, CdiKind, CdiKinds, Sibling, annotations};
pub use path::VfioPath;
pub use plan::{PlannedFunction, VfioPlan, VfioPlanError, VfioWanted, When, plan_vfio};
pub use policy::{ContainerRole, InvalidPolicy, Moment, Port, VfioMode, VfioPolicy};
