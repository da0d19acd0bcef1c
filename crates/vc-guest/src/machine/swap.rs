//! AddSwap and AddSwapPath: memory on a disk that the host has prepared with mkswap(8).

use crate::block::{BlockAddress, BlockSource};
use crate::error::CallError;
use crate::sys;
use std::path::Path;
use vc_types::{PciPath, PciSlot};

/// The disk whose slots, from the root bus on, the protocol gives as numbers.
pub(crate) fn swap_device(slots: &[u32]) -> Result<BlockSource, CallError> {
    let slot = |number: &u32| PciSlot::new(u8::try_from(*number).ok()?, 0).ok();
    let slots: Option<Vec<_>> = slots.iter().map(slot).collect();
    let path = slots.and_then(|slots| {
        let (first, rest) = slots.split_first()?;
        Some(rest.iter().fold(PciPath::root(*first), |path, slot| path.child(*slot)))
    });
    Ok(BlockAddress::Pci(path.ok_or(CallError::Range("the PCI path"))?).into())
}

/// Lets the kernel swap to `device` (swapon(2)).
pub(crate) fn add_swap(device: &Path) -> Result<(), CallError> {
    sys::swap_on(device).map_err(|errno| CallError::Swap(device.into(), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_make_a_path() {
        assert_eq!(swap_device(&[5, 0]).unwrap().to_string(), "PCI path 05/00");
        for bad in [&[] as &[u32], &[32], &[256, 0]] {
            assert!(matches!(swap_device(bad), Err(CallError::Range(_))), "{bad:?}");
        }
    }
}
