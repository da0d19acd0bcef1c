//! Decompresses kernels and modules.
//!
//! LZ4 is done here, since Debian's cloud kernel uses it and the program `lz4` is seldom installed. What other kernels
//! use goes through `xz`, `zstd` and `gzip`, which every Debian has or gets by name: three decoders less to compile.

use std::io::{self, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use crate::command::{self, CommandError};
use crate::lz4;

const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Data cannot be decompressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// Its format is none of those that Linux uses, or not known here.
    #[error("no compression known here (LZ4 legacy, XZ, zstd, gzip): the data starts with {0:02x?}")]
    Unknown(Vec<u8>),
    /// It ends too early.
    #[error("the LZ4 data is cut short")]
    Lz4CutShort,
    /// It is damaged.
    #[error("the LZ4 data is damaged")]
    Lz4(#[from] lz4_flex::block::DecompressError),
    /// The program that does it cannot.
    #[error(transparent)]
    Program(#[from] CommandError),
    /// It cannot be handed to that program.
    #[error("could not write a temporary file")]
    Temporary(#[from] io::Error),
}

/// Decompresses `data`; its first bytes tell the format.
pub(crate) fn decompress(data: &[u8]) -> Result<Vec<u8>, DecompressError> {
    if let Some(blocks) = data.strip_prefix(lz4::MAGIC) {
        return lz4::decompress(blocks);
    }
    for (magic, program) in [(XZ, "xz"), (ZSTD, "zstd"), (GZIP, "gzip")] {
        if data.starts_with(magic) {
            return by_program(program, data);
        }
    }
    Err(DecompressError::Unknown(data[..data.len().min(6)].to_vec()))
}

/// Through a file and not a pipe: a pipe would need a thread to feed it.
fn by_program(program: &str, data: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let mut input = tempfile::tempfile()?;
    input.write_all(data)?;
    input.seek(SeekFrom::Start(0))?;
    let mut command = Command::new(program);
    command.arg("-dc").stdin(Stdio::from(input));
    Ok(command::output(&mut command)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_goes_through_its_program() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hello").unwrap();
        let packed = command::output(Command::new("gzip").arg("-c").arg(file.path())).unwrap();
        assert_eq!(decompress(&packed).unwrap(), b"hello");
    }

    #[test]
    fn damaged_data_is_refused() {
        assert!(decompress(&[lz4::MAGIC, &[9, 0, 0, 0, 1]].concat()).is_err());
        assert!(decompress(b"\x1f\x8b damaged").is_err());
        assert!(decompress(b"plain text").unwrap_err().to_string().contains("no compression known"));
        assert!(decompress(b"").is_err());
    }
}
