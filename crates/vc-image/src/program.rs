//! What can be `/init`: a program that needs nothing but the kernel.

use elf::ElfBytes;
use elf::abi::PT_INTERP;
use elf::endian::LittleEndian;

/// Something cannot be `/init`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It is no program.
    #[error("it is not an ELF file")]
    NotElf(#[source] elf::ParseError),
    /// It has no segments, so it is no program.
    #[error("it is an ELF file without segments")]
    NoSegments,
    /// It needs an interpreter, and a guest image has none.
    #[error("it is not static")]
    NotStatic,
}

/// Whether the program needs nothing but the kernel: an ELF file that names no interpreter.
///
/// # Errors
/// For what is no program.
pub fn is_static(program: &[u8]) -> Result<bool, ProgramError> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(program).map_err(ProgramError::NotElf)?;
    let segments = file.segments().ok_or(ProgramError::NoSegments)?;
    Ok(segments.iter().all(|segment| segment.p_type != PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this_test).unwrap());
        assert!(is_static(b"#!/bin/sh").is_err());
    }
}
