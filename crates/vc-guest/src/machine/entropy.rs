//! ReseedRandomDev: what a machine that was cloned needs, lest both draw the same random numbers.

use crate::error::CallError;
use crate::sys;
use std::fs::File;

/// More than the kernel's generator keeps helps nobody.
const MAX_BYTES: usize = 512;

/// Stirs `data` into the kernel's random number generator, and has it use that at once (random(4)).
pub(crate) fn reseed(data: &[u8]) -> Result<(), CallError> {
    if data.is_empty() || data.len() > MAX_BYTES {
        return Err(CallError::Range("the number of random bytes"));
    }
    let failed = |error| CallError::File("/dev/random".into(), error);
    let device = File::options().write(true).open("/dev/random").map_err(failed)?;
    sys::add_entropy(&device, data).map_err(|errno| failed(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_and_too_many_are_refused() {
        assert!(matches!(reseed(&[]), Err(CallError::Range(_))));
        assert!(matches!(reseed(&[0; MAX_BYTES + 1]), Err(CallError::Range(_))));
    }
}
