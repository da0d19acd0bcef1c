//! A GUID partition table around images that lie one behind the other. Source: UEFI 2.10, section 5.3.

/// Sectors are of 512 bytes.
pub(super) const SECTOR: u64 = 512;

/// Partitions begin at multiples of 4 KiB, the block size of EROFS: then a block of an image is a block
/// of the disk.
const ALIGNMENT: u64 = 8;

/// Room for 128 entries of 128 bytes, the usual size of a table.
const ENTRY_SECTORS: u64 = 32;
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;

/// The protective MBR, the header and the entries, as far as the first multiple of the alignment.
const HEAD: u64 = (2 + ENTRY_SECTORS).next_multiple_of(ALIGNMENT);

/// The entries and the header once more, at the end.
const TAIL: u64 = ENTRY_SECTORS + 1;

/// "Linux filesystem data", in the byte order of the table.
const LINUX_DATA: [u8; 16] = 0x0FC6_3DAF_8483_4772_8E79_3D69_D847_7DE4_u128.to_be_bytes();

/// Where the parts of the disk are, in sectors.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// First sector and number of sectors of each partition.
    pub(super) partitions: Vec<(u64, u64)>,
    /// The sectors of the whole disk.
    pub(super) sectors: u64,
}

impl Layout {
    /// Puts images of these sizes, in bytes, one behind the other.
    pub(super) fn new(sizes: impl IntoIterator<Item = u64>) -> Self {
        let mut next = HEAD;
        let mut partitions = Vec::new();
        for size in sizes {
            let sectors = size.div_ceil(SECTOR);
            partitions.push((next, sectors));
            next = (next + sectors).next_multiple_of(ALIGNMENT);
        }
        Self { partitions, sectors: next + TAIL }
    }

    /// What lies at the start of the disk, before the first image.
    pub(super) fn head(&self) -> Vec<u8> {
        let mut head = self.protective_mbr();
        head.extend(self.header(1, self.sectors - 1, 2));
        head.extend(self.entries());
        head.resize(bytes(HEAD), 0);
        head
    }

    /// What lies at the end of the disk, and in which sector it begins.
    pub(super) fn tail(&self) -> (u64, Vec<u8>) {
        let first = self.sectors - TAIL;
        let mut tail = self.entries();
        tail.extend(self.header(self.sectors - 1, 1, first));
        (first, tail)
    }

    fn protective_mbr(&self) -> Vec<u8> {
        let mut mbr = vec![0; bytes(1)];
        let sectors = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        // Not bootable, from cylinder 0, head 0, sector 2 on, type 0xee, as far as can be said.
        mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
        mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        mbr
    }

    fn header(&self, own: u64, other: u64, entries: u64) -> Vec<u8> {
        let mut header = b"EFI PART".to_vec();
        for word in [0x1_0000_u32, 92, 0, 0] {
            header.extend(word.to_le_bytes());
        }
        for word in [own, other, HEAD, self.sectors - TAIL - 1] {
            header.extend(word.to_le_bytes());
        }
        header.extend(guid(0));
        header.extend(entries.to_le_bytes());
        for word in [ENTRIES, ENTRY_SIZE, crc32fast::hash(&self.entries())] {
            header.extend(word.to_le_bytes());
        }
        // Of the header with zeros in its place.
        let checksum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header.resize(bytes(1), 0);
        header
    }

    fn entries(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        for (number, (first, sectors)) in (1..).zip(&self.partitions) {
            entries.extend(type_guid());
            entries.extend(guid(number));
            entries.extend(first.to_le_bytes());
            entries.extend((first + sectors - 1).to_le_bytes());
            // No attributes, no name.
            entries.extend([0; 80]);
        }
        entries.resize(bytes(ENTRY_SECTORS), 0);
        entries
    }
}

/// The table has the first three fields of a GUID in little endian.
fn type_guid() -> [u8; 16] {
    let mut guid = LINUX_DATA;
    guid[0..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    guid
}

/// Different for each partition, and the same for the same images: nobody finds a disk by it.
fn guid(number: u32) -> [u8; 16] {
    let mut guid = *b"vc layer\x80\0\0\0\0\0\0\0";
    guid[12..].copy_from_slice(&number.to_be_bytes());
    guid
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR).expect("a few KiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn images_lie_at_multiples_of_4_kib() {
        let layout = Layout::new([4096, 512, 513, 8192]);
        assert_eq!(layout.partitions, [(40, 8), (48, 1), (56, 2), (64, 16)]);
        assert_eq!(layout.sectors, 80 + 33);
    }

    #[test]
    fn the_table_is_there_twice_and_its_sums_are_right() {
        let layout = Layout::new([4096, 4096]);
        let head = layout.head();
        let (first, tail) = layout.tail();
        assert_eq!((head.len(), tail.len()), (40 * 512, 33 * 512));
        assert_eq!(first * 512 + 33 * 512, layout.sectors * 512);
        assert_eq!(head[1024..1024 + 32 * 512], tail[..32 * 512]);
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        for header in [&head[512..1024], &tail[32 * 512..]] {
            assert_eq!(&header[..8], b"EFI PART");
            assert_eq!(word(header, 88), crc32fast::hash(&tail[..32 * 512]));
            let mut blank = header[..92].to_vec();
            blank[16..20].fill(0);
            assert_eq!(word(header, 16), crc32fast::hash(&blank));
        }
        // As sgdisk and the kernel write it: 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
        let linux =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        assert_eq!(head[1024..1040], linux);
    }

    proptest! {
        #[test]
        fn partitions_keep_their_order_and_never_overlap(sizes in prop::collection::vec(1u64..1 << 40, 1..=128)) {
            let layout = Layout::new(sizes.iter().copied());
            prop_assert_eq!(layout.partitions.len(), sizes.len());
            let mut free_from = HEAD;
            for ((first, sectors), size) in layout.partitions.iter().zip(&sizes) {
                prop_assert!(*first >= free_from && first % ALIGNMENT == 0);
                prop_assert!(sectors * SECTOR >= *size && (sectors - 1) * SECTOR < *size);
                free_from = first + sectors;
            }
            prop_assert!(free_from <= layout.tail().0);
        }
    }
}
