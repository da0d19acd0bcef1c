//! Device rules of a container as a program for the kernel: cgroup version 2 has no file for them.
//!
//! The kernel asks the program at each mknod(2) and each open(2) of a device
//! (`Documentation/admin-guide/cgroup-v2.rst`, "Device controller").

use crate::cgroup::{Cgroup, CgroupError};
use crate::sys;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

/// Kinds of device and of access, as the kernel tells them (`enum` in `include/uapi/linux/bpf.h`).
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const ACCESSES: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// Registers: the kernel's question, and what the program made of it.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
/// The accesses that no rule has allowed yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Why device rules are not enforced.
#[derive(Debug, thiserror::Error)]
pub enum DeviceRuleError {
    /// The rule is malformed.
    #[error("the device access {0:?} is not made of r, w and m")]
    Access(String),
    /// The device number is out of the kernel's range.
    #[error("the device number {0} is out of range")]
    Number(i64),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The kernel refuses.
    #[error("the kernel does not take the device rules")]
    Attach(#[source] nix::errno::Errno),
}

/// What every container may do: make nodes, and use these character devices. A device without a
/// number stands for all of its major.
const ALWAYS: [(Option<i32>, Option<i32>, &str); 9] = [
    (None, None, "m"),
    (Some(1), Some(3), "rwm"),
    (Some(1), Some(5), "rwm"),
    (Some(1), Some(7), "rwm"),
    (Some(1), Some(8), "rwm"),
    (Some(1), Some(9), "rwm"),
    (Some(5), Some(0), "rwm"),
    (Some(5), Some(2), "rwm"),
    (Some(136), None, "rwm"),
];

/// Has the kernel enforce `rules` on the processes of `cgroup`.
///
/// # Errors
/// [`DeviceRuleError`] says which rule or step.
pub(crate) fn enforce(rules: &[LinuxDeviceCgroup], cgroup: &Cgroup) -> Result<(), DeviceRuleError> {
    let program = program(rules)?;
    let directory = cgroup.open()?;
    sys::attach_device_program(&directory, &program).map_err(DeviceRuleError::Attach)
}

/// The program for `rules`: of the rules about a device and an access the last one counts, what no rule
/// speaks of is denied, and what every container needs is allowed.
pub(crate) fn program(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u64>, DeviceRuleError> {
    let mut program = vec![
        load(KIND, 0),
        copy(OPEN, KIND),
        alu_and(KIND, 0xffff),
        shift_right(OPEN, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let mut block_nodes = Rule { kind: Some(BLOCK), major: None, minor: None, access: 1, allow: true };
    program.extend(block_nodes.code());
    block_nodes.kind = Some(CHARACTER);
    for (major, minor, access) in ALWAYS {
        let access = access_bits(access)?;
        program.extend(Rule { major, minor, access, ..block_nodes }.code());
    }
    for rule in rules.iter().rev() {
        program.extend(Rule::read(rule)?.code());
    }
    program.extend(answer(0));
    Ok(program)
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
    allow: bool,
}

impl Rule {
    fn read(rule: &LinuxDeviceCgroup) -> Result<Self, DeviceRuleError> {
        let number = |number: Option<i64>| {
            let number = number.filter(|number| *number >= 0);
            number.map(|n| i32::try_from(n).map_err(|_| DeviceRuleError::Number(n))).transpose()
        };
        let kind = match rule.typ() {
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
            // Pipes are no devices, and never asked about.
            Some(LinuxDeviceType::P) => Some(0),
            Some(LinuxDeviceType::A) | None => None,
        };
        Ok(Self {
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access: access_bits(rule.access().as_deref().unwrap_or("rwm"))?,
            allow: rule.allow(),
        })
    }

    /// Skips itself for other devices; takes the accesses that it allows off the open ones, and answers
    /// when none is left, or when one is denied.
    fn code(self) -> Vec<u64> {
        let mut body = Vec::new();
        if self.allow {
            body.push(alu_and(OPEN, !self.access));
            body.push(skip_unless_equal(OPEN, 0, 2));
            body.extend(answer(1));
        } else {
            body.push(copy(SCRATCH, OPEN));
            body.push(alu_and(SCRATCH, self.access));
            body.push(skip_if_equal(SCRATCH, 0, 2));
            body.extend(answer(0));
        }
        let wanted = [(KIND, self.kind), (MAJOR, self.major), (MINOR, self.minor)];
        for (register, value) in wanted.into_iter().rev() {
            if let Some(value) = value {
                let length = i16::try_from(body.len()).expect("a rule is a few instructions");
                body.insert(0, skip_unless_equal(register, value, length));
            }
        }
        body
    }
}

fn access_bits(access: &str) -> Result<i32, DeviceRuleError> {
    access.chars().try_fold(0, |bits, letter| {
        let known = ACCESSES.iter().find(|(name, _)| *name == letter);
        known.map(|(_, bit)| bits | bit).ok_or_else(|| DeviceRuleError::Access(access.to_owned()))
    })
}

/// One instruction in the kernel's encoding (`Documentation/bpf/instruction-set.rst`), little endian.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(to | from << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value.cast_unsigned()) << 32
}

/// A 32-bit number of the question.
fn load(to: u8, offset: i16) -> u64 {
    instruction(0x61, to, QUESTION, offset, 0)
}

fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbc, to, from, 0, 0)
}

fn alu_and(register: u8, value: i32) -> u64 {
    instruction(0x54, register, 0, 0, value)
}

fn shift_right(register: u8, bits: i32) -> u64 {
    instruction(0x74, register, 0, 0, bits)
}

fn skip_unless_equal(register: u8, value: i32, instructions: i16) -> u64 {
    instruction(0x55, register, 0, instructions, value)
}

fn skip_if_equal(register: u8, value: i32, instructions: i16) -> u64 {
    instruction(0x15, register, 0, instructions, value)
}

/// 1 allows, 0 denies.
fn answer(value: i32) -> [u64; 2] {
    [instruction(0xb4, ANSWER, 0, 0, value), instruction(0x95, 0, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What the kernel would answer: the few instructions that [`program`] uses.
    fn run(program: &[u64], kind: i32, access: &str, major: u32, minor: u32) -> bool {
        let question = [(access_bits(access).unwrap() << 16 | kind).cast_unsigned(), major, minor];
        let mut registers = [0u32; 8];
        let mut next = 0;
        loop {
            let [code, both, low, high, value @ ..] = program[next].to_le_bytes();
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            let offset = usize::from(u16::from_le_bytes([low, high]));
            let value = u32::from_le_bytes(value);
            next += 1;
            match code {
                0x61 => registers[to] = question[offset / 4],
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0xb4 => registers[to] = value,
                0x55 if registers[to] != value => next += offset,
                0x15 if registers[to] == value => next += offset,
                0x55 | 0x15 => {}
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn rules(text: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_last_rule_about_an_access_counts() {
        let program = program(&rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
            {"allow": true, "type": "b", "major": 8, "access": "rw"},
            {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "w"},
        ])))
        .unwrap();
        let asks = |kind, access, major, minor| run(&program, kind, access, major, minor);
        // Two rules allow together what neither allows alone.
        assert!(asks(CHARACTER, "rw", 10, 229));
        assert!(!asks(CHARACTER, "r", 10, 228));
        assert!(!asks(BLOCK, "r", 10, 229));
        assert!(asks(BLOCK, "rw", 8, 0) && asks(BLOCK, "r", 8, 1));
        assert!(!asks(BLOCK, "rw", 8, 1) && !asks(BLOCK, "w", 8, 1));
        // What every container needs.
        assert!(asks(CHARACTER, "rw", 1, 3) && asks(CHARACTER, "rw", 136, 7) && asks(BLOCK, "m", 9, 9));
        assert!(!asks(CHARACTER, "r", 1, 1), "/dev/mem");
    }

    #[test]
    fn a_rule_for_all_devices_opens_all() {
        let program = program(&rules(json!([{"allow": false}, {"allow": true, "type": "a"}]))).unwrap();
        assert!(run(&program, BLOCK, "rwm", 8, 0) && run(&program, CHARACTER, "rw", 1, 1));
    }

    #[test]
    fn a_malformed_rule_is_an_error() {
        let access = program(&rules(json!([{"allow": true, "access": "rx"}])));
        assert!(matches!(access, Err(DeviceRuleError::Access(text)) if text == "rx"));
        let number = program(&rules(json!([{"allow": true, "major": 1_i64 << 40}])));
        assert!(matches!(number, Err(DeviceRuleError::Number(_))));
    }
}
