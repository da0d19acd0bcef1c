//! Writes an initial RAM disk in cpio's `newc` format (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The same entries give the same bytes: owner and time are fixed, inode numbers count up, and the order is the caller's.

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// A path or the data of an entry is longer than the format can tell.
#[derive(Debug, thiserror::Error)]
#[error("{0} is too large for an initial RAM disk")]
pub struct TooLargeError(String);

/// An archive that grows entry by entry.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

#[derive(Default)]
struct Header {
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl Archive {
    /// Adds a directory with mode 0755; its parent must have been added before.
    ///
    /// # Errors
    /// For a path that is too long.
    pub fn directory(&mut self, path: &str) -> Result<(), TooLargeError> {
        self.entry(path, &Header { mode: DIRECTORY | 0o755, links: 2, ..Header::default() }, &[])
    }

    /// Adds a file with these permissions.
    ///
    /// # Errors
    /// For 4 GiB and more.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) -> Result<(), TooLargeError> {
        self.entry(path, &Header { mode: FILE | permissions, links: 1, ..Header::default() }, data)
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// For a path that is too long.
    pub fn device(
        &mut self,
        path: &str,
        permissions: u32,
        (major, minor): (u32, u32),
    ) -> Result<(), TooLargeError> {
        self.entry(
            path,
            &Header { mode: CHARACTER_DEVICE | permissions, links: 1, device: (major, minor) },
            &[],
        )
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        let trailer = self.append(0, "TRAILER!!!", &Header { links: 1, ..Header::default() }, &[]);
        trailer.expect("it is small");
        self.bytes
    }

    fn entry(&mut self, path: &str, header: &Header, data: &[u8]) -> Result<(), TooLargeError> {
        self.entries += 1;
        self.append(self.entries, path, header, data)
    }

    fn append(&mut self, inode: u32, path: &str, header: &Header, data: &[u8]) -> Result<(), TooLargeError> {
        let size = |length: usize| u32::try_from(length).map_err(|_| TooLargeError(path.to_owned()));
        let (name_size, size) = (size(path.len() + 1)?, size(data.len())?);
        let (major, minor) = header.device;
        // Inode, mode, owner, group, links, time, size, device of the file (2), device number (2), name size, checksum.
        let fields = [inode, header.mode, 0, 0, header.links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_newc() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"abc").unwrap();
        let header = "070701\
            00000001000081ed000000000000000000000001000000000000000300000000000000000000000000000000000000050000\
            0000";
        let expected = [header.as_bytes(), b"init\0\0abc\0"].concat();
        assert_eq!(archive.bytes, expected);
    }

    #[test]
    fn the_archive_ends_with_its_trailer() {
        let bytes = Archive::default().finish();
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
