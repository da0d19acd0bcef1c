//! Overlay options as kernels print them, as mounters give them, and broken ones.

use super::*;
use proptest::prelude::*;

fn lower(overlay: &OverlayOptions) -> Vec<(&[u8], bool)> {
    overlay.lower.iter().map(|dir| (dir.path.as_os_str().as_bytes(), dir.data_only)).collect()
}

#[test]
fn mount_table_options_are_decoded() {
    // Linux 6.18, lowerdir given to mount(2) with an escaped colon, and a space in a name.
    let shown =
        r"lowerdir=/s/sp\040ace:/s/co\134:lon:/s/com\134\054ma,upperdir=/s/u\134:p,workdir=/s/w,uuid=on";
    let overlay = OverlayOptions::from_mount_table(shown).unwrap();
    let want: [(&[u8], bool); 3] = [(b"/s/sp ace", false), (b"/s/co:lon", false), (b"/s/com,ma", false)];
    assert_eq!(lower(&overlay), want);
    assert_eq!(overlay.upper.as_deref(), Some(Path::new("/s/u:p")));
    assert_eq!(overlay.work.as_deref(), Some(Path::new("/s/w")));
}

#[test]
fn appended_directories_have_no_colon_rule() {
    let overlay =
        OverlayOptions::from_mount_table(r"lowerdir+=/co:lon,lowerdir+=/b\134s,datadir+=/d").unwrap();
    let want: [(&[u8], bool); 3] = [(b"/co:lon", false), (br"/b\s", false), (b"/d", true)];
    assert_eq!(lower(&overlay), want);
    assert_eq!(overlay.upper, None);
}

#[test]
fn two_colons_start_directories_for_data() {
    let overlay = OverlayOptions::from_mount_table("lowerdir=/a:/b::/c::/d").unwrap();
    let want: [(&[u8], bool); 4] = [(b"/a", false), (b"/b", false), (b"/c", true), (b"/d", true)];
    assert_eq!(lower(&overlay), want);
}

#[test]
fn options_for_mount_protect_commas_by_backslash() {
    let overlay =
        OverlayOptions::from_mount_options([r"index=off,lowerdir=/a\,b:c\\", r"upperdir=/u\,"]).unwrap();
    let want: [(&[u8], bool); 2] = [(b"/a,b", false), (br"c\", false)];
    assert_eq!(lower(&overlay), want);
    assert_eq!(overlay.upper.as_deref(), Some(Path::new("/u,")));
    let resolved = overlay.resolved(Path::new("/base"));
    assert_eq!(resolved.lower[0].path, Path::new("/a,b"));
    assert_eq!(resolved.lower[1].path, Path::new(r"/base/c\"));
}

#[test]
fn broken_options_are_refused_by_kind() {
    let kind = |options: &str| OverlayOptions::from_mount_table(options).unwrap_err();
    assert_eq!(kind(""), OverlayError::NoLower);
    assert_eq!(kind("upperdir=/u,workdir=/w"), OverlayError::NoLower);
    for empty in
        ["lowerdir=", "lowerdir=:/a", "lowerdir=/a:", "lowerdir=/a:::/b", "lowerdir=/a::", "lowerdir+="]
    {
        assert!(matches!(kind(empty), OverlayError::Empty { .. }), "{empty}");
    }
    assert!(matches!(kind("lowerdir=/a::/b:/c"), OverlayError::LowerAfterData { .. }));
    assert!(matches!(kind("datadir+=/a,lowerdir+=/c"), OverlayError::LowerAfterData { .. }));
}

fn with_backslashes(name: &[u8]) -> Vec<u8> {
    name.iter().flat_map(|b| if b":\\,".contains(b) { vec![b'\\', *b] } else { vec![*b] }).collect()
}

fn octal(text: &[u8]) -> Vec<u8> {
    let one = |b: &u8| if b", \t\n\\".contains(b) { format!("\\{b:03o}").into_bytes() } else { vec![*b] };
    text.iter().flat_map(one).collect()
}

proptest! {
    #[test]
    fn any_names_survive_both_ways(names in prop::collection::vec(prop::collection::vec(1_u8..=255, 1..20), 1..9)) {
        let joined = names.iter().map(|name| with_backslashes(name)).collect::<Vec<_>>().join(&b':');
        let given = [b"lowerdir=", &joined[..]].concat();
        let from_mount = OverlayOptions::from_mount_options([OsStr::from_bytes(&given)]).unwrap();
        let shown = [b"lowerdir=", &octal(&joined)[..]].concat();
        let from_table = OverlayOptions::from_mount_table(OsStr::from_bytes(&shown)).unwrap();
        prop_assert_eq!(&from_mount, &from_table);
        let want: Vec<_> = names.iter().map(|name| (&name[..], false)).collect();
        prop_assert_eq!(lower(&from_table), want);

        let appended: Vec<_> = names.iter().map(|name| [b"lowerdir+=", &octal(name)[..]].concat()).collect();
        let shown = appended.join(&b',');
        prop_assert_eq!(&OverlayOptions::from_mount_table(OsStr::from_bytes(&shown)).unwrap(), &from_table);
    }
}
