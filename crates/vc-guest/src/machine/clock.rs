//! SetGuestDateTime: the clock, which stood still while the machine did.

use crate::error::CallError;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use vc_agent_protocol::agent::SetGuestDateTimeRequest;

/// Sets the clock to the seconds and microseconds since 1970 of the request.
pub(crate) fn set_clock(request: &SetGuestDateTimeRequest) -> Result<(), CallError> {
    let microseconds = Some(request.usec).filter(|usec| (0..1_000_000).contains(usec));
    let (Some(microseconds), true) = (microseconds, request.sec >= 0) else {
        return Err(CallError::Range("the time"));
    };
    let time = TimeSpec::new(request.sec, microseconds * 1000);
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(|errno| CallError::System("set the clock", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_refused() {
        for (sec, usec) in [(-1, 0), (0, -1), (0, 1_000_000)] {
            let request = SetGuestDateTimeRequest { sec, usec, ..Default::default() };
            assert!(matches!(set_clock(&request), Err(CallError::Range("the time"))), "{sec} {usec}");
        }
    }
}
