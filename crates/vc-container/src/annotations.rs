//! Limits that a container's annotations give, named as Kata Containers names them, so that a pod asks for them in the
//! same words.

use oci_spec::runtime::Spec;

/// `memory.swappiness` of the container.
const SWAPPINESS: &str = "io.katacontainers.container.resource.swappiness";

/// `memory.swap` of the container: memory and swap space together, in bytes.
const SWAP: &str = "io.katacontainers.container.resource.swap_in_bytes";

/// The largest that the kernel takes (Documentation/admin-guide/sysctl/vm.rst, `swappiness`).
const MOST_SWAPPINESS: u64 = 200;

/// An annotation that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} is {value:?}; it must be a number of at most {most}")]
pub struct InvalidAnnotation {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The largest number that it takes.
    pub most: u64,
}

/// Puts the limits that annotations give among those of the specification, where they win.
pub(crate) fn apply(spec: &mut Spec) -> Result<(), InvalidAnnotation> {
    let swappiness = number(spec, SWAPPINESS, MOST_SWAPPINESS)?;
    // The specification's limit is signed.
    let swap = number(spec, SWAP, i64::MAX.unsigned_abs())?;
    if swappiness.is_none() && swap.is_none() {
        return Ok(());
    }
    // What is not there is as it would be without annotations.
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut memory = resources.memory().unwrap_or_default();
    if swappiness.is_some() {
        memory.set_swappiness(swappiness);
    }
    if let Some(swap) = swap {
        memory.set_swap(i64::try_from(swap).ok());
    }
    resources.set_memory(Some(memory));
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    Ok(())
}

/// The number that an annotation gives, in decimal or, after `0x`, in hexadecimal digits.
fn number(spec: &Spec, name: &'static str, most: u64) -> Result<Option<u64>, InvalidAnnotation> {
    let Some(value) = spec.annotations().as_ref().and_then(|all| all.get(name)) else { return Ok(None) };
    let number = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    match number {
        Ok(number) if number <= most => Ok(Some(number)),
        _ => Err(InvalidAnnotation { name, value: value.clone(), most }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxMemory;

    fn applied(json: &str) -> Result<Spec, InvalidAnnotation> {
        let mut spec = serde_json::from_str(json).unwrap();
        apply(&mut spec)?;
        Ok(spec)
    }

    fn memory(spec: &Spec) -> LinuxMemory {
        spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory().unwrap()
    }

    /// L-44: the swap limit could become negative, a swappiness of 201 was said to be fine in words and not in deeds, and
    /// a specification without `linux` ended the process.
    #[test]
    fn l44_annotations_are_checked_and_need_nothing_beside_them() {
        let json = format!(
            r#"{{"ociVersion": "1.2.0", "annotations": {{"{SWAPPINESS}": "200", "{SWAP}": "0x40000000"}}}}"#
        );
        let limits = memory(&applied(&json).unwrap());
        assert_eq!((limits.swappiness(), limits.swap(), limits.limit()), (Some(200), Some(1 << 30), None));
        for (name, bad) in [
            (SWAPPINESS, "201"),
            (SWAPPINESS, "-1"),
            (SWAPPINESS, ""),
            (SWAP, "9223372036854775808"),
            (SWAP, "-1"),
            (SWAP, "1G"),
        ] {
            let json = format!(r#"{{"ociVersion": "1.2.0", "annotations": {{"{name}": "{bad}"}}}}"#);
            let error = applied(&json).unwrap_err();
            assert_eq!((error.name, &*error.value), (name, bad));
        }
    }

    #[test]
    fn they_win_over_the_limits_of_the_specification_and_leave_the_others() {
        let json = format!(
            r#"{{"ociVersion": "1.2.0", "annotations": {{"{SWAP}": "9"}},
                "linux": {{"resources": {{"memory": {{"limit": 5, "swap": 6}}, "pids": {{"limit": 7}}}}}}}}"#
        );
        let spec = applied(&json).unwrap();
        assert_eq!((memory(&spec).swap(), memory(&spec).limit()), (Some(9), Some(5)));
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.pids().unwrap().limit(), 7);
        let without = r#"{"ociVersion": "1.2.0"}"#;
        assert_eq!(applied(without).unwrap(), serde_json::from_str(without).unwrap());
    }
}
