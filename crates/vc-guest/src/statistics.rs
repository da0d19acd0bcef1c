//! Texts in which the kernel counts: `io.stat` and `/proc/net/dev`.

/// What a cgroup has read from and written to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockDevice {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

/// What went through a network interface in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
}

/// Reads `io.stat` (`Documentation/admin-guide/cgroup-v2.rst`): `8:0 rbytes=1 wbytes=2 rios=3 …`.
pub(crate) fn block_devices(text: &str) -> Vec<BlockDevice> {
    text.lines().filter_map(block_device).collect()
}

fn block_device(line: &str) -> Option<BlockDevice> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut device =
        BlockDevice { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Default::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let count = match key {
            "rbytes" => &mut device.read_bytes,
            "wbytes" => &mut device.written_bytes,
            "rios" => &mut device.reads,
            "wios" => &mut device.writes,
            _ => continue,
        };
        *count = value.parse().unwrap_or_default();
    }
    Some(device)
}

/// Reads `/proc/net/dev` (proc_pid_net(5)): two lines of titles, then `name: ` and 16 numbers.
pub(crate) fn interfaces(text: &str) -> Vec<Interface> {
    text.lines().skip(2).filter_map(interface).collect()
}

fn interface(line: &str) -> Option<Interface> {
    // Names may have colons in them, numbers have none.
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers: Vec<u64> =
        numbers.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
    let [received, sent] = [numbers.get(..4)?, numbers.get(8..12)?].map(|numbers| Traffic {
        bytes: numbers[0],
        packets: numbers[1],
        errors: numbers[2],
        dropped: numbers[3],
    });
    Some(Interface { name: name.trim().to_owned(), received, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_are_counted_and_unknown_keys_skipped() {
        // Linux 6.1; a device without any traffic has a line without counts.
        let text =
            "254:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=7 dios=1\n254:16 \njunk\n8:0 rbytes=1\n";
        let want = [
            BlockDevice { major: 254, minor: 0, read_bytes: 4096, written_bytes: 512, reads: 2, writes: 1 },
            BlockDevice { major: 254, minor: 16, ..Default::default() },
            BlockDevice { major: 8, minor: 0, read_bytes: 1, ..Default::default() },
        ];
        assert_eq!(block_devices(text), want);
        assert_eq!(block_devices(""), []);
    }

    #[test]
    fn interfaces_are_read_as_linux_6_1_writes_them() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     156       2    0    0    0     0          0         0      156       2    0    0    0     0       0          0\n  \
            eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n short: 1 2\n";
        let interfaces = interfaces(text);
        assert_eq!(interfaces.len(), 2);
        let traffic = |bytes, packets, errors, dropped| Traffic { bytes, packets, errors, dropped };
        assert_eq!(interfaces[0].name, "lo");
        assert_eq!(interfaces[0].received, traffic(156, 2, 0, 0));
        assert_eq!(interfaces[1].received, traffic(1, 2, 3, 4));
        assert_eq!(interfaces[1].sent, traffic(9, 10, 11, 12));
    }
}
