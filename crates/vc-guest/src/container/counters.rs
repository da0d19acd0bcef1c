//! The files in which the kernel counts what a container uses, opened once and read at each call.
//!
//! Opening one costs the kernel several times what reading it does, since each path is looked up anew.

use nix::sys::uio::pread;
use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

/// The longest of these files that is read, in bytes.
const MAX_LENGTH: usize = 256 * 1024;

/// All counters of one container.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) processor: Counter,
    pub(super) memory_parts: Counter,
    pub(super) memory: Usage,
    pub(super) swap: Usage,
    pub(super) processes: Counter,
    pub(super) most_processes: Counter,
    pub(super) disks: Counter,
    /// By page size, such as `2MB`.
    pub(super) huge_pages: Vec<(String, Counter, Counter)>,
    pub(super) network: Counter,
}

/// The four files of memory, or of swap.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) current: Counter,
    pub(super) most: Counter,
    pub(super) peak: Counter,
    pub(super) events: Counter,
}

impl Counters {
    /// Those of the cgroup at `cgroup`, and of the network of the process `init`, which stay readable
    /// after its end.
    pub(super) fn open(cgroup: &Path, init: nix::unistd::Pid) -> Self {
        let counter = |name: &str| Counter::open(&cgroup.join(name), true);
        let usage = |prefix: &str| Usage {
            current: counter(&format!("{prefix}.current")),
            most: counter(&format!("{prefix}.max")),
            peak: counter(&format!("{prefix}.peak")),
            events: counter(&format!("{prefix}.events")),
        };
        let huge = |size: String| {
            let (used, events) =
                (counter(&format!("hugetlb.{size}.current")), counter(&format!("hugetlb.{size}.events")));
            (size, used, events)
        };
        Self {
            processor: counter("cpu.stat"),
            memory_parts: counter("memory.stat"),
            memory: usage("memory"),
            swap: usage("memory.swap"),
            processes: counter("pids.current"),
            most_processes: counter("pids.max"),
            disks: counter("io.stat"),
            huge_pages: huge_page_sizes(cgroup).map(huge).collect(),
            network: Counter::open(Path::new(&format!("/proc/{init}/net/dev")), false),
        }
    }
}

/// The sizes that the cgroup counts, in its names for them.
fn huge_page_sizes(cgroup: &Path) -> impl Iterator<Item = String> {
    let files = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned());
    // `2MB.rsvd` is what is only reserved.
    names.filter_map(size).filter(|size| !size.contains('.'))
}

/// One file; without a text when the kernel does not have it.
#[derive(Debug)]
pub(super) struct Counter {
    file: Option<File>,
    /// Whether the kernel gives all of the file at once, as of every file of a cgroup; of others it gives no
    /// more at a time than a page.
    is_whole: bool,
}

impl Counter {
    fn open(path: &Path, is_whole: bool) -> Self {
        Self { file: File::open(path).ok(), is_whole }
    }

    /// The text, read into `buffer`; empty when there is none. Names of network interfaces may be any bytes.
    pub(super) fn text<'a>(&self, buffer: &'a mut Vec<u8>) -> Cow<'a, str> {
        let length = self.file.as_ref().map_or(0, |file| self.read(file, buffer));
        String::from_utf8_lossy(&buffer[..length])
    }

    /// Overwrites `buffer`, which only grows, and returns how much of it is the text.
    fn read(&self, file: &File, buffer: &mut Vec<u8>) -> usize {
        let mut length = 0;
        loop {
            if length == buffer.len() {
                if length >= MAX_LENGTH {
                    return length;
                }
                buffer.resize(2 * length.max(4096), 0);
            }
            let offset = i64::try_from(length).unwrap_or(i64::MAX);
            match pread(file, &mut buffer[length..], offset) {
                Ok(0) | Err(_) => return length,
                Ok(more) => length += more,
            }
            if self.is_whole && length < buffer.len() {
                return length;
            }
        }
    }

    /// The number; `None` for `max`, and when there is none.
    pub(super) fn number(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        self.text(buffer).trim_end().parse().ok()
    }

    /// The number in the line of `key`; 0 when there is none.
    pub(super) fn entry(&self, key: &str, buffer: &mut Vec<u8>) -> u64 {
        entry(&self.text(buffer), key)
    }
}

/// The number in the line `key number` of `text`; 0 when there is none.
pub(super) fn entry(text: &str, key: &str) -> u64 {
    pairs(text).find(|(name, _)| *name == key).map_or(0, |(_, number)| number)
}

/// The lines `key number` of `text`.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, number) = line.split_once(' ')?;
        Some((key, number.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::write;

    #[test]
    fn counters_are_read_again_and_what_is_missing_counts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, text) in [
            ("cpu.stat", "usage_usec 7\nnr_periods 2\njunk\n"),
            ("memory.max", "max\n"),
            ("memory.current", "4096\n"),
            ("hugetlb.2MB.current", "5\n"),
            ("hugetlb.2MB.rsvd.current", "6\n"),
        ] {
            write(path(name), text).unwrap();
        }
        let counters = Counters::open(directory.path(), nix::unistd::getpid());
        let buffer = &mut Vec::new();
        assert_eq!(counters.processor.entry("nr_periods", buffer), 2);
        assert_eq!(counters.processor.entry("nr_throttled", buffer), 0);
        assert_eq!(counters.memory.most.number(buffer), None);
        assert_eq!(counters.memory.current.number(buffer), Some(4096));
        write(path("memory.current"), "8192\n").unwrap();
        assert_eq!(counters.memory.current.number(buffer), Some(8192));
        assert_eq!(counters.swap.current.number(buffer), None);
        let [(size, used, events)] = &counters.huge_pages[..] else { panic!("{counters:?}") };
        assert_eq!((size.as_str(), used.number(buffer), events.entry("max", buffer)), ("2MB", Some(5), 0));
        // Two lines of headings, and the loopback interface at least.
        assert!(counters.network.text(buffer).lines().count() >= 3);
    }

    #[test]
    fn a_long_file_is_read_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let text = "8:0 rbytes=1\n".repeat(5000);
        write(directory.path().join("io.stat"), &text).unwrap();
        let counters = Counters::open(directory.path(), nix::unistd::getpid());
        assert!(counters.disks.text(&mut Vec::new()) == text);
    }
}
