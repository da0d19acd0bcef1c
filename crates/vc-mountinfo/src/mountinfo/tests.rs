//! Lines as real kernels print them, and every way they can be broken.

use super::*;
use proptest::prelude::*;

fn entry(line: &[u8]) -> Entry<'_> {
    Entry::parse(line).unwrap()
}

#[test]
fn a_line_is_split_at_single_spaces_only() {
    // Linux 6.18, a tmpfs mounted with an empty source, at a path with CR, VT and U+00A0 in it.
    let line = b"90 83 0:51 / /mnt/a\r\x0b\xc2\xa0b rw,relatime - tmpfs  rw,inode64";
    let entry = entry(line);
    assert_eq!(&*entry.source(), "");
    assert_eq!(entry.mount_point().as_os_str().as_encoded_bytes(), b"/mnt/a\r\x0b\xc2\xa0b");
    assert_eq!(entry.fs_options(), b"inode64");
}

#[test]
fn the_separator_is_the_first_lone_dash_after_the_options() {
    let with_fields = entry(b"1 2 7:0 / - ro shared:5 master:3 - erofs - ro,acl");
    assert_eq!(with_fields.mount_point().as_os_str(), "-");
    assert_eq!(with_fields.optional_fields, b"shared:5 master:3");
    assert_eq!(&*with_fields.source(), "-");
    let without = entry(b"1 2 7:0 / /m ro - erofs /dev/loop0 ro,acl");
    assert_eq!(without.optional_fields, b"");
    assert_eq!(&*without.source(), "/dev/loop0");
    assert_eq!(without.fs_options(), b"acl");
}

#[test]
fn escapes_are_decoded_in_every_name() {
    let entry = entry(b"1 2 0:5 /a\\040b /c\\134040\xff rw - fuse.\\043x \\011 rw");
    assert_eq!(entry.root().to_str(), Some("/a b"));
    assert_eq!(entry.mount_point().as_os_str().as_encoded_bytes(), b"/c\\040\xff");
    assert_eq!(&*entry.fs_type(), "fuse.#x");
    assert_eq!(&*entry.source(), "\t");
}

#[test]
fn read_only_is_of_the_mount_or_of_its_filesystem() {
    for (line, want) in [
        (&b"1 2 0:5 / /m rw,noatime - x y rw"[..], false),
        (b"1 2 0:5 / /m ro - x y rw", true),
        (b"1 2 0:5 / /m rw - x y ro,rodent", true),
        (b"1 2 0:5 / /m rw - x y rodent", false),
    ] {
        assert_eq!(entry(line).is_read_only(), want, "{}", line.escape_ascii());
    }
}

/// a line with another number of fields than expected ended the whole look-up.
#[test]
fn r12_a_malformed_line_is_named_and_skipped() {
    let table = b"x\n1 2 7:0 / /m ro - erofs s ro\n1 2 7 / /m ro - erofs s ro\n\n1 2 7:0 / /m ro erofs s ro\n1 2 7:0 / /m ro - erofs s\n2 1 7:1 / /n ro - erofs t ro";
    let missing: Vec<_> = parse(table).map(|e| e.map(|e| e.id).map_err(|e| e.missing)).collect();
    let want = [
        Err("mount id"),
        Ok(1),
        Err("device number"),
        Err("mount id"),
        Err("separator"),
        Err("superblock options"),
        Ok(2),
    ];
    assert_eq!(missing, want);
    let mut reader = MountInfoReader::new(&table[..]);
    for want in want {
        match (reader.next_entry(), want) {
            (Ok(Some(entry)), Ok(id)) => assert_eq!(entry.id, id),
            (Err(ReadError::Malformed(line)), Err(missing)) => assert_eq!(line.missing, missing),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }
    assert!(reader.next_entry().unwrap().is_none());
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn a_line_of_many_megabytes_is_read_like_any_other() {
    let options = vec![b'x'; 5 << 20];
    let table =
        [b"1 2 7:0 / /m ro - overlay o ro,", &options[..], b"\n2 1 7:1 / /n ro - erofs t ro\n"].concat();
    let mut reader = MountInfoReader::new(&table[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().fs_options(), options);
    assert_eq!(reader.next_entry().unwrap().unwrap().id, 2);
    assert!(reader.next_entry().unwrap().is_none());
}

/// Hands out at most `self.1` bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(buffer.len());
        std::io::Read::read(&mut self.0, &mut buffer[..most])
    }
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    text.iter().flat_map(one).collect()
}

prop_compose! {
    fn names()(names in prop::collection::vec(prop::collection::vec(1_u8..=255, 0..40), 3)) -> Vec<Vec<u8>> {
        names
    }
}

proptest! {
    #[test]
    fn parsing_inverts_printing(
        ids in any::<[u32; 4]>(),
        names in names(),
        fields in prop::collection::vec("[a-z_]{1,9}:[0-9]{1,4}", 0..3),
        options in "(ro|rw)(,[a-z=]{1,9}){0,4}",
    ) {
        let [id, parent, major, minor] = ids;
        let mut line = format!("{id} {parent} {major}:{minor} /").into_bytes();
        line.extend(escaped(&names[0]));
        line.extend(b" /");
        line.extend(escaped(&names[1]));
        line.extend(format!(" {options} {}", fields.join(" ")).trim_end().bytes());
        line.extend(b" - erofs ");
        line.extend(escaped(&names[2]));
        line.extend(format!(" {options}").bytes());

        let entry = Entry::parse(&line).unwrap();
        prop_assert_eq!([entry.id, entry.parent_id], [id, parent]);
        prop_assert_eq!(entry.device, DeviceNumber::new(major, minor));
        let (root, point, source, fields) = (entry.root(), entry.mount_point(), entry.source(), fields.join(" "));
        prop_assert_eq!(&root.as_os_str().as_encoded_bytes()[1..], &names[0][..]);
        prop_assert_eq!(&point.as_os_str().as_encoded_bytes()[1..], &names[1][..]);
        prop_assert_eq!(source.as_encoded_bytes(), &names[2][..]);
        prop_assert_eq!(entry.optional_fields, fields.as_bytes());
        prop_assert_eq!(entry.super_options, options.as_bytes());
    }

    #[test]
    fn any_bytes_in_any_pieces_give_the_same_entries(
        text in prop::collection::vec(prop_oneof![4 => Just(b' '), 4 => Just(b'\n'), 1 => any::<u8>(), 6 => b'0'..=b'9'], 0..4000),
        piece in 1_usize..1500,
    ) {
        let mut reader = MountInfoReader::new(Slow(&text, piece));
        for want in parse(&text) {
            match reader.next_entry() {
                Ok(Some(entry)) => prop_assert_eq!(Ok(entry), want),
                Err(ReadError::Malformed(line)) => prop_assert_eq!(Err(line), want),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert!(reader.next_entry().unwrap().is_none());
    }
}
