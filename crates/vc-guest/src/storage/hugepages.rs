//! Huge pages for a hugetlbfs (the kernel's `Documentation/admin-guide/mm/hugetlbpage.rst`).

use super::error::StorageError;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many pages of which size a storage needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// The size of a page, in bytes.
    pub page_size: u64,
    /// All of them together, in bytes.
    pub size: u64,
}

impl HugePages {
    /// Reads `pagesize=` and `size=`, both in bytes.
    pub(super) fn parse(options: &[String]) -> Option<Self> {
        let number = |key: &str| {
            let mut values =
                options.iter().flat_map(|text| text.split(',')).filter_map(|option| option.strip_prefix(key));
            values.next_back()?.parse().ok()
        };
        let (page_size, size) = (number("pagesize=")?, number("size=")?);
        (page_size >= 1024 && size >= page_size).then_some(Self { page_size, size })
    }

    /// Has the kernel reserve as many pages more. `directory` is `/sys/kernel/mm/hugepages`.
    ///
    /// What it reserves then is the sum of all storages; it never has fewer pages than are in use.
    pub(super) fn reserve(self, directory: &Path) -> Result<(), StorageError> {
        let wanted = self.size / self.page_size;
        let file = self.file(directory);
        let _alone = alone();
        let before = read(&file)?;
        write(&file, before.saturating_add(wanted))?;
        let got = read(&file)?.saturating_sub(before);
        if got < wanted {
            write(&file, before)?;
            return Err(StorageError::HugePages { page_size: self.page_size, wanted, got });
        }
        Ok(())
    }

    /// Gives the pages back.
    pub(super) fn release(self, directory: &Path) -> Result<(), StorageError> {
        let file = self.file(directory);
        let _alone = alone();
        let before = read(&file)?;
        write(&file, before.saturating_sub(self.size / self.page_size))
    }

    fn file(self, directory: &Path) -> PathBuf {
        directory.join(format!("hugepages-{}kB/nr_hugepages", self.page_size / 1024))
    }
}

/// The number of pages is read and then written, which only one may do at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(file: &Path) -> Result<u64, StorageError> {
    let failed = |source| StorageError::Contents { step: "read", path: file.into(), source };
    std::fs::read_to_string(file)
        .map_err(failed)?
        .trim()
        .parse()
        .map_err(|error| failed(std::io::Error::other(error)))
}

fn write(file: &Path, number: u64) -> Result<(), StorageError> {
    let failed = |source| StorageError::Contents { step: "write", path: file.into(), source };
    std::fs::write(file, number.to_string()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_needed() {
        let parse =
            |options: &[&str]| HugePages::parse(&options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>());
        let pages = HugePages { page_size: 2 << 20, size: 10 << 20 };
        assert_eq!(parse(&["pagesize=2097152", "size=10485760"]), Some(pages));
        assert_eq!(parse(&["pagesize=2097152,size=10485760"]), Some(pages));
        for bad in [&["size=10485760"] as &[_], &["pagesize=2M", "size=1"], &["pagesize=0", "size=0"], &[]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn storages_add_up_and_give_back() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("hugepages-2048kB/nr_hugepages");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "1\n").unwrap();
        let pages = HugePages { page_size: 2 << 20, size: 10 << 20 };
        pages.reserve(root.path()).unwrap();
        pages.reserve(root.path()).unwrap();
        assert_eq!(read(&file).unwrap(), 11);
        pages.release(root.path()).unwrap();
        assert_eq!(read(&file).unwrap(), 6);
    }

    #[test]
    fn a_page_size_that_the_kernel_lacks_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let absent = HugePages { page_size: 1 << 30, size: 1 << 30 }.reserve(root.path());
        assert!(matches!(absent, Err(StorageError::Contents { step: "read", .. })));
    }
}
