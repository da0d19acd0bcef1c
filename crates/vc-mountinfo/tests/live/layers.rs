//! The images behind the layers of real overlays, by loop device and by file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use vc_mountinfo::erofs::{
    ErofsImage, ImageError, LayerError, LayerImage, LayerLookup, RootfsError, UuidCheck, Via,
};
use vc_mountinfo::{LookupError, LoopError, OverlayOptions};

use crate::images::{self, Loop, mount_file};
use crate::kernel;
use crate::world::{World, in_private_world, ways};

/// The image of a layer, about which all ways agree.
#[track_caller]
fn layer_image(directory: impl AsRef<Path>) -> Result<LayerImage, LayerError> {
    let mut found = ways().into_iter().map(|way| LayerLookup::new().forced(way).image(&directory));
    let first = found.next().unwrap();
    for other in found {
        match (&first, other) {
            (Ok(first), Ok(other)) => {
                assert_eq!(first.image.id(), other.image.id());
                assert_eq!((&first.via, first.uuid_check), (&other.via, other.uuid_check));
            }
            (Err(first), Err(other)) => assert_eq!(first.to_string(), other.to_string()),
            (first, other) => panic!("{first:?} by one way, {other:?} by another"),
        }
    }
    first
}

/// The layers of a mounted overlay, about which all ways agree.
#[track_caller]
fn overlay_layers(rootfs: &Path, base: Option<&Path>) -> Result<Vec<LayerImage>, RootfsError> {
    let files = |layers: &Result<Vec<LayerImage>, RootfsError>| match layers {
        Ok(layers) => layers.iter().map(|layer| layer.image.path().display().to_string()).collect(),
        Err(error) => vec![error.to_string()],
    };
    // One after the other: the images of 500 layers are 500 open files.
    let find = |way| LayerLookup::new().forced(way).of_overlay(rootfs, base);
    let answers: Vec<_> = ways().into_iter().map(|way| files(&find(way))).collect();
    let best = LayerLookup::new().of_overlay(rootfs, base);
    answers.into_iter().for_each(|answer| assert_eq!(answer, files(&best)));
    best
}

/// The directory `m/<name>` with an image of that name mounted by file.
fn file_layer(world: &World, name: impl AsRef<Path>) -> (PathBuf, PathBuf) {
    let image = images::make(world, name.as_ref().with_extension("erofs"));
    let at = world.path("m").join(name);
    mount_file(&image, &at, None);
    (image, at)
}

fn mount_overlay(world: &World, options: &str) -> PathBuf {
    let at = world.dir("m/overlay");
    mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(options)).unwrap();
    at
}

#[test]
fn layers_come_in_the_order_of_the_lower_directories() {
    in_private_world(|world| {
        let (first, first_at) = file_layer(world, "first");
        let second = images::make(world, "second.erofs");
        let device = Loop::attach(&second);
        device.mount(&world.path("m/second"));
        let (third, third_at) = file_layer(world, "th ird,odd");

        let names =
            [first_at, world.path("m/second"), third_at].map(|p| p.to_str().unwrap().replace(',', "\\,"));
        let given = format!("lowerdir={}", names.join(":"));
        let rootfs = mount_overlay(world, &given);
        let from_mount = overlay_layers(&rootfs, None).unwrap();
        let from_options =
            LayerLookup::new().images(OverlayOptions::from_mount_options([&given]).unwrap().lower).unwrap();
        for layers in [from_mount, from_options] {
            let files: Vec<_> = layers.iter().map(|layer| layer.image.path()).collect();
            assert_eq!(files, [&*first, &second, &third]);
            assert_eq!(layers[0].via, Via::File);
            assert!(matches!(&layers[1].via, Via::Loop(file) if file.number == device.number));
            assert!(layers.iter().all(|layer| layer.uuid_check == UuidCheck::Same && !layer.data_only));
        }
    });
}

#[test]
fn overlays_of_120_layers_and_of_the_most_there_can_be_are_read_whole() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        let long = "x".repeat(60);
        let layers: Vec<_> = (0..500).map(|n| world.path(format!("m/{long}{n}"))).collect();
        let mut files = Vec::new();
        for (n, at) in layers.iter().enumerate() {
            let file = world.path(format!("{n}.erofs"));
            fs::copy(&image, &file).unwrap();
            mount_file(&file, at, None);
            files.push(file);
        }
        for count in [120, 500] {
            let at = world.dir(format!("m/overlay{count}"));
            let options: Vec<_> = layers[..count].iter().map(|at| ("lowerdir+", &**at)).collect();
            kernel::mount_by_fsconfig("overlay", &options, &at).unwrap();
            let found = overlay_layers(&at, None).unwrap();
            let found: Vec<_> = found.iter().map(|layer| layer.image.path()).collect();
            assert_eq!(found, files[..count].iter().map(|file| &**file).collect::<Vec<_>>());
        }
    });
}

/// What this thread has read so far, in bytes (proc_pid_io(5)).
fn bytes_read() -> usize {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// The seed reads the whole mount table once for each layer.
#[test]
fn l7_the_mount_table_is_not_read_for_each_layer() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        for n in 0..300 {
            world.tmpfs(format!("m/other{n}"), &"x".repeat(100));
        }
        let layers: Vec<_> = (0..40).map(|n| world.path(format!("m/layer{n}"))).collect();
        layers.iter().for_each(|at| mount_file(&image, at, None));
        let at = world.dir("m/overlay");
        let options: Vec<_> = layers.iter().map(|at| ("lowerdir+", &**at)).collect();
        kernel::mount_by_fsconfig("overlay", &options, &at).unwrap();
        let table = fs::read("/proc/thread-self/mountinfo").unwrap().len();
        for way in ways() {
            let before = bytes_read();
            assert_eq!(LayerLookup::new().forced(way).of_overlay(&at, None).unwrap().len(), layers.len());
            let read = bytes_read() - before;
            assert!(
                read < 5 * table,
                "{way:?}: {read} bytes for {} layers, the table has {table}",
                layers.len()
            );
        }
    });
}

#[test]
fn directories_for_data_only_are_told() {
    in_private_world(|world| {
        let (names, names_at) = file_layer(world, "names");
        let (data, data_at) = file_layer(world, "data");
        let given = format!("lowerdir={}::{},metacopy=on", names_at.display(), data_at.display());
        let colons = world.dir("m/colons");
        mount(Some("overlay"), &colons, Some("overlay"), MsFlags::empty(), Some(&*given)).unwrap();
        let appended = world.dir("m/appended");
        let options: [(&str, &Path); 3] =
            [("lowerdir+", &names_at), ("datadir+", &data_at), ("metacopy", Path::new("on"))];
        kernel::mount_by_fsconfig("overlay", &options, &appended).unwrap();
        for rootfs in [colons, appended] {
            let found = overlay_layers(&rootfs, None).unwrap();
            let found: Vec<_> = found.iter().map(|layer| (layer.image.path(), layer.data_only)).collect();
            assert_eq!(found, [(&*names, false), (&*data, true)]);
        }
    });
}

#[test]
fn relative_lower_directories_need_to_know_from_where() {
    in_private_world(|world| {
        let (image, _) = file_layer(world, "a");
        file_layer(world, "b");
        std::env::set_current_dir(world.path("m")).unwrap();
        let rootfs = mount_overlay(world, "lowerdir=a:b");
        std::env::set_current_dir("/").unwrap();
        assert!(matches!(overlay_layers(&rootfs, None), Err(RootfsError::Relative { .. })));
        let layers = overlay_layers(&rootfs, Some(&world.path("m"))).unwrap();
        assert_eq!(layers[0].image.path(), image);
    });
}

#[test]
fn what_is_not_the_whole_of_an_image_is_refused() {
    in_private_world(|world| {
        let (image, at) = file_layer(world, "a");
        let shifted = world.path("shifted");
        fs::write(&shifted, [vec![0; 4096], fs::read(&image).unwrap()].concat()).unwrap();
        mount_file(&shifted, &world.path("m/shifted"), Some("fsoffset=4096"));
        let found = layer_image(world.path("m/shifted"));
        assert!(matches!(&found, Err(LayerError::Offset { offset, .. }) if offset == "4096"), "{found:?}");

        let device = Loop::attach_part(&shifted, 4096, 0);
        device.mount(&world.path("m/window"));
        let found = layer_image(world.path("m/window"));
        assert!(
            matches!(&found, Err(LayerError::Loop { source: LoopError::Window { offset: 4096, .. }, .. })),
            "{found:?}"
        );

        fs::create_dir(world.path("tree/dir")).unwrap();
        let (_, with_dir) = file_layer(world, "with-dir");
        world.bind(with_dir.join("dir"), "m/bound");
        let found = layer_image(world.path("m/bound"));
        assert!(
            matches!(&found, Err(LayerError::PartOfImage { root, .. }) if root == Path::new("/dir")),
            "{found:?}"
        );

        let found = layer_image(at.join("name"));
        let Err(LayerError::Lookup { source: LookupError::NotMountPoint { path }, .. }) = found else {
            panic!("{found:?}")
        };
        assert_eq!(path, at.join("name"), "the name, although a handle was asked about");
        assert!(matches!(layer_image(world.path("m")), Err(LayerError::NotErofs { .. })));
        assert!(matches!(layer_image(world.path("none")), Err(LayerError::Open(_))));
    });
}

#[test]
fn a_file_that_is_gone_or_replaced_is_not_taken() {
    in_private_world(|world| {
        let (image, at) = file_layer(world, "a");
        let other = images::make(world, "other.erofs");
        assert_eq!(layer_image(&at).unwrap().image.path(), image);
        let moved = world.path("moved");
        fs::rename(&image, &moved).unwrap();
        assert!(matches!(layer_image(&at), Err(LayerError::Missing { .. })));
        fs::rename(&other, &image).unwrap();
        assert!(matches!(layer_image(&at), Err(LayerError::Replaced { .. })));
        fs::rename(&moved, &image).unwrap();
        layer_image(&at).unwrap();
    });
}

#[test]
fn images_without_a_uuid_are_compared_by_size() {
    in_private_world(|world| {
        let none = "-U00000000-0000-0000-0000-000000000000";
        let image = images::make_with(world, "a.erofs", &[none]);
        let at = world.path("m/a");
        mount_file(&image, &at, None);
        assert_eq!(layer_image(&at).unwrap().uuid_check, UuidCheck::None);
        fs::write(world.path("tree/big"), vec![7; 100_000]).unwrap();
        let larger = images::make_with(world, "larger.erofs", &[none]);
        fs::rename(larger, &image).unwrap();
        assert!(matches!(layer_image(&at), Err(LayerError::Replaced { .. })));
    });
}

#[test]
fn a_loop_file_that_is_gone_is_told_by_kind() {
    in_private_world(|world| {
        let image = images::make(world, "a.erofs");
        let at = world.path("m/a");
        Loop::attach(&image).mount(&at);
        // The handle is closed: the mount alone keeps the device.
        assert_eq!(layer_image(&at).unwrap().image.path(), image);
        fs::rename(&image, world.path("renamed")).unwrap();
        assert_eq!(layer_image(&at).unwrap().image.path(), world.path("renamed"));
        fs::remove_file(world.path("renamed")).unwrap();
        let found = layer_image(&at);
        assert!(
            matches!(&found, Err(LayerError::Loop { source: LoopError::Deleted { .. }, .. })),
            "{found:?}"
        );
    });
}

#[test]
fn a_source_that_only_its_mounter_knows_is_refused() {
    in_private_world(|world| {
        let image = images::make(world, "a.erofs");
        let file = File::open(&image).unwrap();
        for (name, source) in [("fd", kernel::fd_path(&file)), ("relative", "a.erofs".into())] {
            std::env::set_current_dir(world.path("")).unwrap();
            let at = world.path("m").join(name);
            mount_file(&source, &at, None);
            std::env::set_current_dir("/").unwrap();
            assert!(matches!(layer_image(&at), Err(LayerError::NoPath { .. })), "{name}");
        }
    });
}

#[test]
fn a_multi_device_image_is_refused() {
    in_private_world(|world| {
        let blobs = world.path("blobs");
        let options = [&*format!("--blobdev={}", blobs.display()), "--chunksize=4096"];
        fs::create_dir(world.path("tree")).unwrap();
        fs::write(world.path("tree/big"), vec![7; 100_000]).unwrap();
        let image = images::make_with(world, "a.erofs", &options);
        let opened = ErofsImage::open(&image);
        assert!(matches!(opened, Err(ImageError::MultiDevice { extra_devices: 1, .. })), "{opened:?}");

        let at = world.path("m/a");
        mount_file(&image, &at, Some(&format!("device={}", blobs.display())));
        let found = layer_image(&at);
        let Err(LayerError::Image { source, .. }) = found else { panic!("{found:?}") };
        assert!(matches!(source, ImageError::MultiDevice { .. }));
    });
}

#[test]
fn a_damaged_image_says_how() {
    in_private_world(|world| {
        let image = images::make(world, "a.erofs");
        let whole = fs::read(&image).unwrap();
        let with = |change: &dyn Fn(&File)| {
            fs::write(&image, &whole).unwrap();
            change(&File::options().write(true).open(&image).unwrap());
            ErofsImage::open(&image)
        };
        assert!(with(&|_| ()).is_ok());
        let appended = with(&|file| file.write_all_at(b"hash tree", whole.len() as u64).unwrap()).unwrap();
        assert_eq!(appended.length(), whole.len() as u64 + 9);
        assert_eq!(appended.superblock().size(), whole.len() as u64);

        let truncated = with(&|file| file.set_len(whole.len() as u64 - 1).unwrap());
        assert!(matches!(truncated, Err(ImageError::Truncated { .. })), "{truncated:?}");
        for length in [0, 1, 1024, 1151, 2000] {
            let short = with(&|file| file.set_len(length).unwrap());
            assert!(short.is_err(), "{length}: {short:?}");
        }
        let magic = with(&|file| file.write_all_at(b"x", 1024).unwrap());
        assert!(matches!(magic, Err(ImageError::NotErofs { looks_like: None, .. })), "{magic:?}");
        let damaged = with(&|file| file.write_all_at(b"xy", 1024 + 16).unwrap());
        assert!(matches!(damaged, Err(ImageError::Checksum { .. })), "{damaged:?}");
        // Without the checksum, which would tell first.
        let foreign = with(&|file| {
            file.write_all_at(&[0; 4], 1024 + 8).and(file.write_all_at(&[0x10], 1024 + 82)).unwrap();
        });
        assert!(
            matches!(foreign, Err(ImageError::UnknownFeatures { features: 0x10_0000, .. })),
            "{foreign:?}"
        );
        let gzip = with(&|file| file.write_all_at(b"\x1f\x8b\x08", 0).and(file.set_len(99)).unwrap());
        assert!(gzip.unwrap_err().to_string().contains("looks like a gzip file"));

        nix::unistd::mkfifo(&world.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, want) in [
            (world.path("fifo"), "FIFO"),
            (world.path("m"), "directory"),
            ("/dev/null".into(), "character device"),
        ] {
            let opened = ErofsImage::open(path);
            assert!(matches!(opened, Err(ImageError::NotAFile { kind, .. }) if kind == want), "{opened:?}");
        }
    });
}
