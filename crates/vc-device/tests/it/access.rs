//! Read-only is decided once, and by everything that has a say.

use vc_device::{Access, AccessError, AccessFacts, decide_access};

#[test]
fn l15_whatever_says_read_only_makes_the_device_read_only() {
    use Access::{ReadOnly, ReadWrite};
    for (read_only_mount, cgroup_write, read_only_device, access) in [
        (false, None, false, ReadWrite),
        (false, Some(true), false, ReadWrite),
        (true, None, false, ReadOnly),
        (false, Some(false), false, ReadOnly),
        (false, None, true, ReadOnly),
        (true, Some(true), true, ReadOnly),
    ] {
        let facts = AccessFacts { read_only_mount, cgroup_write, read_only_device, must_write: false };
        assert_eq!(decide_access(facts), Ok(access), "{facts:?}");
    }
}

#[test]
fn conflicting_wishes_are_refused() {
    let must_write = AccessFacts { must_write: true, ..AccessFacts::default() };
    assert_eq!(decide_access(must_write), Ok(Access::ReadWrite));
    let mount = AccessFacts { read_only_mount: true, ..must_write };
    assert_eq!(decide_access(mount), Err(AccessError::Contradiction));
    let rule = AccessFacts { cgroup_write: Some(false), ..must_write };
    assert_eq!(decide_access(rule), Err(AccessError::Contradiction));
    let device = AccessFacts { read_only_device: true, ..must_write };
    assert_eq!(decide_access(device), Err(AccessError::ReadOnlyDevice));
}
