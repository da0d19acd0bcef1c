//! Whole lives on the fakes: as they should go, and with every call going wrong in turn.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[expect(dead_code, reason = "a look at what is real is for others")]
mod faulty;

#[path = "life/ahead.rs"]
mod ahead;
#[path = "life/bench.rs"]
mod bench;
#[path = "life/defects.rs"]
mod defects;
#[path = "life/faults.rs"]
mod faults;
#[path = "life/ghosts.rs"]
mod ghosts;
#[path = "life/model.rs"]
mod model;
#[path = "life/passing.rs"]
mod passing;
#[path = "life/recovery.rs"]
mod recovery;
#[path = "life/rules.rs"]
mod rules;
#[path = "life/storage.rs"]
mod storage;
#[path = "life/surface.rs"]
mod surface;
