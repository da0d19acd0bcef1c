//! What snapshotters hand over, and what is read from it: one file in `golden/rootfs` for each form.
//!
//! Set `VC_WRITE_GOLDEN` to write what is read instead of comparing it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::Path;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use vc_storage::{LayerSource, Mount, MountsError, Rootfs, TemplateError, Upper};

#[derive(Serialize, Deserialize)]
struct Golden {
    mounts: Vec<Mount>,
    reason: Option<String>,
    rootfs: serde_json::Value,
}

#[test]
fn every_form_that_is_handed_over_is_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rootfs");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let golden: Golden = serde_json::from_str(&text).unwrap();
        let rootfs = Rootfs::of_mounts(&golden.mounts).unwrap_or_else(|error| panic!("{path:?}: {error:?}"));
        let read = Golden {
            mounts: golden.mounts,
            reason: Some(rootfs.reason()),
            rootfs: serde_json::to_value(&rootfs).unwrap(),
        };
        let read = serde_json::to_string_pretty(&read).unwrap() + "\n";
        if std::env::var_os("VC_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &read).unwrap();
        } else {
            assert_eq!(read, text, "{path:?}");
        }
        count += 1;
    }
    assert!(count >= 21, "only {count} files");
}

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    Mount { kind: kind.into(), source: source.into(), options }
}

fn error(mounts: &[Mount]) -> MountsError {
    Rootfs::of_mounts(mounts).unwrap_err()
}

/// containerd#12796: without `format/` nobody resolves the template, and it would be taken as a path.
#[test]
fn a_template_without_format_is_refused() {
    let list = [mount("erofs", "/a", &[]), mount("overlay", "overlay", &["lowerdir={{ mount 0 }}"])];
    let error = error(&list);
    assert!(
        matches!(&error, MountsError::Template { index: 1, source: TemplateError::NotFormatted(_) }),
        "{error}"
    );
}

#[test]
fn no_mount_is_lost_and_none_is_doubled() {
    let [a, b] = ["/a", "/b"].map(|source| mount("erofs", source, &["ro"]));
    let overlay = |options: &[&str]| mount("format/overlay", "overlay", options);
    let lost = [a.clone(), b.clone(), overlay(&["lowerdir={{ mount 0 }}"])];
    assert_eq!(error(&lost), MountsError::Uses { index: 1, uses: 0 });
    let doubled = [a.clone(), b, overlay(&["lowerdir={{ overlay 0 1 }}:{{ mount 1 }}"])];
    assert_eq!(error(&doubled), MountsError::Uses { index: 1, uses: 2 });
    assert_eq!(error(&[a.clone(), a]), MountsError::Uses { index: 0, uses: 0 });
}

#[test]
fn what_is_not_understood_is_refused() {
    assert_eq!(error(&[]), MountsError::NoMounts);
    for kind in ["tmpfs", "format/tmpfs", "gzip/overlay", "mkfs/overlay", "", "overlay/", "fuse.sshfs"] {
        assert!(matches!(error(&[mount(kind, "/a", &[])]), MountsError::Kind { index: 0, .. }), "{kind}");
    }
    let option = |kind: &str, option: &str| error(&[mount(kind, "/a", &[option])]);
    assert!(matches!(option("erofs", "fsoffset=4096"), MountsError::Option { .. }));
    assert!(matches!(option("erofs", "X-containerd.new=1"), MountsError::Option { .. }));
    assert!(matches!(option("ext4", "X-containerd.dmverity=/a"), MountsError::Option { .. }));
    assert!(matches!(error(&[mount("erofs", "a", &[])]), MountsError::Path { .. }));
    assert!(matches!(error(&[mount("ext4", "/dev/../a", &[])]), MountsError::Path { .. }));
    let list = [mount("bind", "/a", &[]), mount("overlay", "overlay", &["lowerdir=/b"])];
    assert!(matches!(error(&list), MountsError::Place { index: 0, .. }));
    let data_only = mount("overlay", "overlay", &["lowerdir=/a::/b"]);
    assert!(matches!(error(&[data_only]), MountsError::DataOnly(_)));
    let outside = [
        mount("mkfs/ext4", "/rw", &["X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=1M"]),
        mount("format/mkdir/bind", "{{ mount 0 }}/upper", &["X-containerd.mkdir.path=/etc:0777"]),
    ];
    assert!(matches!(error(&outside), MountsError::Option { index: 1, .. }));
    let read_only = [
        mount("erofs", "/a", &[]),
        mount("ext4", "/rw", &["ro"]),
        mount(
            "format/overlay",
            "overlay",
            &["lowerdir={{ mount 0 }}", "upperdir={{ mount 1 }}/u", "workdir={{ mount 1 }}/w"],
        ),
    ];
    assert!(matches!(error(&read_only), MountsError::Place { index: 1, .. }));
}

/// Kata looks for the mount below the upper directory by the start of its name, finds that of another
/// snapshot, and plugs its image. Here a directory is never turned into a device.
#[test]
fn l4_the_upper_directory_of_the_host_is_never_a_disk() {
    let options = ["upperdir=/snapshots/1/fs", "workdir=/snapshots/1/work", "lowerdir=/snapshots/12/fs"];
    let Rootfs::Layers(layers) = Rootfs::of_mounts(&[mount("overlay", "overlay", &options)]).unwrap() else {
        panic!("layers are expected");
    };
    let unused = Some("/snapshots/1/fs".to_owned());
    assert!(
        matches!(&layers.upper, Upper::Memory { unused: found } if found.as_ref().map(ToString::to_string) == unused)
    );
}

/// The seed splits at every colon.
#[test]
fn l6_overlay_options_are_read_as_the_kernel_does() {
    let layers = |options: &[&str]| match Rootfs::of_mounts(&[mount("overlay", "overlay", options)]).unwrap()
    {
        Rootfs::Layers(layers) => layers.layers,
        other => panic!("{other:?}"),
    };
    let at = |paths: &[&str]| -> Vec<LayerSource> {
        paths.iter().map(|path| LayerSource::MountedAt(vc_types::HostPath::new(path).unwrap())).collect()
    };
    assert_eq!(layers(&[r"lowerdir=/a\:b:/c"]), at(&["/a:b", "/c"]));
    assert_eq!(layers(&["lowerdir+=/a:b", "lowerdir+=/c"]), at(&["/a:b", "/c"]));
}

#[test]
fn options_that_came_as_one_text_are_told_apart() {
    let of = |option: &str| Rootfs::of_mounts(&[mount("overlay", "overlay", &[option])]).unwrap();
    let Rootfs::Layers(layers) = of(r"ro,lowerdir=/a\,b:/c,metacopy=on") else {
        panic!("layers are expected");
    };
    assert_eq!((layers.layers.len(), layers.options), (2, vec!["ro".to_owned(), "metacopy=on".to_owned()]));
    let list = [
        mount("erofs", "/a", &[]),
        mount("format/overlay", "o", &["lowerdir={{ mount 0 }},x={{ mount 0 }}"]),
    ];
    assert!(matches!(error(&list), MountsError::Option { index: 1, .. }));
}

/// The seed plugs the disk that holds a directory which is handed over as the root: the host's own.
#[test]
fn l49_a_directory_is_shared_and_its_disk_is_never_plugged() {
    let rootfs = Rootfs::of_mounts(&[mount("bind", "/var/lib/native/7", &["rbind", "rw"])]).unwrap();
    assert!(matches!(rootfs, Rootfs::Directory { read_only: false, .. }), "{rootfs:?}");
}

/// The seed never tells that the disk of a root file system is read-only.
#[test]
fn l15_a_read_only_root_is_a_read_only_disk() {
    let read_only = |options: &[&str]| match Rootfs::of_mounts(&[mount("ext4", "/dev/a", options)]).unwrap() {
        Rootfs::Block(block) => block.read_only,
        other => panic!("{other:?}"),
    };
    assert!(read_only(&["ro"]));
    assert!(!read_only(&["rw"]) && !read_only(&[]));
}

proptest! {
    #[test]
    fn d1_layers_out_are_layers_in_and_in_order(count in 1usize..130, split in 0usize..130) {
        let split = split % count;
        let mut list: Vec<Mount> =
            (0..count).map(|n| mount("erofs", &format!("/layers/{n}"), &["ro", "loop"])).collect();
        let range = |first: usize, last: usize| format!("{{{{ overlay {first} {last} }}}}");
        let lower = if split == 0 {
            range(0, count - 1)
        } else {
            format!("{}:{}", range(0, split - 1), range(split, count - 1))
        };
        list.push(mount("format/mkdir/overlay", "overlay", &[&format!("lowerdir={lower}")]));
        let Rootfs::Layers(layers) = Rootfs::of_mounts(&list).unwrap() else {
            panic!("layers are expected");
        };
        let names: Vec<_> = layers.layers.iter().map(|layer| match layer {
            LayerSource::Image { image, .. } => image.to_string(),
            LayerSource::MountedAt(path) => panic!("{path}"),
        }).collect();
        let expected: Vec<_> = (0..count).map(|n| format!("/layers/{n}")).collect();
        prop_assert_eq!(names, expected);
    }

    #[test]
    fn no_text_makes_it_panic(kind in "(format/|mkdir/|mkfs/){0,3}(overlay|bind|erofs|ext4)", text in ".{0,60}", inner in "[a-z0-9 -]{0,20}") {
        let list = [
            mount("erofs", "/a", &["ro"]),
            mount(&kind, &text, &[&format!("lowerdir={{{{{inner}}}}}{text}"), &text]),
        ];
        let _ = Rootfs::of_mounts(&list);
    }
}
