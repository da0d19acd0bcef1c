//! Every kind of storage, with something in it to be found.

use vc_agent_protocol::agent::{self, FSGroup};
use vc_agent_protocol::types::FSGroupChangePolicy;

use super::guest::{Plan, code, deadline, storage};
use super::images;

/// What a machine can be given before it boots; the driver that it takes loads when it is asked for.
#[tokio::test]
async fn each_kind_of_disk_has_its_contents() {
    let Some(mut plan) = Plan::new() else { return };
    let directory = plan.directory().to_owned();
    let image = |kind: &str, name: &str| images::filesystem(&directory, kind, name, 16);
    plan.scsi_disk(&image("squashfs", "squash"), 3);
    plan.disk(&image("ext4", "ext"), 0x11, true);
    plan.disk(&images::filesystem(&directory, "xfs", "xfs", 320), 0x12, true);
    let layers = [image("erofs", "first"), image("erofs", "second")];
    plan.disk(&images::partitioned(&directory, &layers), 0x13, false);
    plan.disk(&image("ext4", "upper"), 0x14, true);
    let guest = plan.boot().await;

    let script =
        "cat /run/s/squash/squash-file /run/s/ext/ext-file && echo x > /run/s/xfs/x && cat /run/s/xfs/x";
    let storages = vec![
        storage("scsi", "0:3", "squashfs", &["ro"], "/run/s/squash"),
        storage("blk", "11", "ext4", &[], "/run/s/ext"),
        storage("blk", "12", "xfs", &["nouuid"], "/run/s/xfs"),
    ];
    let output = guest.shell("disks", storages, &["/run/s"], script).await;
    assert_eq!(output, "squash-file\next-file\nx\n");

    // Layers on one disk, topmost first, below a writable one that keeps what was written.
    let lower = |number: &str| {
        let number = format!("X-kata.partition-number={number}");
        let markers =
            ["X-kata.overlay-lower", "X-kata.multi-layer=true", "X-kata.gpt-partitioned=true", &number];
        storage("blk", "13", "erofs", &[&["ro"], &markers[..]].concat(), "/run/s/layers")
    };
    let upper = ["X-kata.overlay-upper", "X-kata.multi-layer=true", "X-kata.mkdir.path={{ mount 0 }}/upper"];
    let layers = || vec![storage("blk", "14", "ext4", &upper, "/run/s/layers"), lower("2"), lower("1")];
    let script = "cd /run/s/layers && cat first-file second-file && echo kept > first-file && ls";
    let output = guest.shell("layers", layers(), &["/run/s/layers"], script).await;
    assert_eq!(output, "first-file\nsecond-file\nfirst-file\nsecond-file\n");
    let output = guest.shell("again", layers(), &["/run/s/layers"], "cat /run/s/layers/first-file").await;
    assert_eq!(output, "kept\n");
    guest.end().await;
}

#[tokio::test]
async fn a_verified_layer_is_read_and_a_changed_one_is_not() {
    let Some(mut plan) = Plan::new() else { return };
    let directory = plan.directory().to_owned();
    let [good, bare, bad] =
        ["good", "bare", "bad"].map(|name| images::filesystem(&directory, "erofs", name, 0));
    let of_good = images::add_hashes(&good, true);
    let of_bare = images::add_hashes(&bare, false);
    let of_bad = images::add_hashes(&bad, true);
    // The superblock of EROFS, which every mount reads.
    let changed = std::fs::File::options().write(true).open(&bad).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&changed, b"changed", 1100).unwrap();
    for (image, slot) in [(&good, 0x11), (&bare, 0x12), (&bad, 0x13)] {
        plan.disk(image, slot, false);
    }
    let guest = plan.boot().await;
    let layer = |slot: &str, hashes: &images::Hashes, more: &[&str], at: &str| {
        let offset = format!("X-kata.dmverity.hashoffset={}", hashes.offset);
        let root = format!("X-kata.dmverity.roothash={}", hashes.root);
        let markers = ["ro", "X-kata.dmverity-enabled=true", &offset, &root];
        storage("blk", slot, "erofs", &[&markers, more].concat(), at)
    };
    let salt = format!("X-kata.dmverity.salt={}", of_bare.salt);
    let alone = ["X-kata.dmverity.no-superblock=true", &salt];
    let storages =
        vec![layer("11", &of_good, &[], "/run/v/good"), layer("12", &of_bare, &alone, "/run/v/bare")];
    let script = "cat /run/v/good/good-file /run/v/bare/bare-file; grep -c '^/dev/dm-. /run/v' /proc/mounts";
    assert_eq!(guest.shell("good", storages, &["/run/v"], script).await, "good-file\nbare-file\n2\n");

    // Without a superblock the salt is the host's to tell.
    let unsalted = layer("12", &of_bare, &alone[..1], "/run/v/bare");
    assert_eq!(code(guest.start("unsalted", vec![unsalted], &[], "true").await), ttrpc::Code::INTERNAL);
    let refused = guest.start("bad", vec![layer("13", &of_bad, &[], "/run/v/bad")], &[], "true").await;
    assert_eq!(code(refused), ttrpc::Code::INTERNAL);
    // Nothing of the failed ones is left.
    let output = guest.shell("after", vec![], &[], "grep -c dm- /proc/partitions").await;
    assert_eq!(output, "0\n");
    guest.end().await;
}

#[tokio::test]
async fn storages_of_the_guests_own() {
    let Some(plan) = Plan::new() else { return };
    let guest = plan.boot().await;
    let mut group = storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"], "/run/g/group");
    let policy = FSGroupChangePolicy::OnRootMismatch.into();
    group.fs_group =
        Some(FSGroup { group_id: 4711, group_change_policy: policy, ..Default::default() }).into();
    let storages = vec![
        storage("ephemeral", "tmpfs", "tmpfs", &["size=1m", "fsgid=42"], "/run/g/memory"),
        storage("ephemeral", "nodev", "hugetlbfs", &["pagesize=2097152", "size=4194304"], "/run/g/huge"),
        storage("local", "local", "local", &["mode=0777"], "/run/g/local"),
        storage("bind", "/run/g/memory", "bind", &["ro"], "/run/g/bind"),
        group,
    ];
    let script = "cd /run/g; stat -c '%g %a' memory local group; df -k memory | tail -1 | awk '{print $2}'; \
        grep HugePages_Total /proc/meminfo; echo x > memory/x && cat bind/x; echo y > bind/y || echo refused";
    let output = guest.shell("own", storages, &["/run/g"], &format!("({script}) 2>/dev/null")).await;
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "42 3777", "{output}");
    assert_eq!(lines[1].split(' ').nth(1), Some("777"), "{output}");
    assert!(lines[2].starts_with("4711 37"), "{output}");
    assert_eq!(lines[3], "1024", "{output}");
    assert_eq!(lines[4].split_whitespace().nth(1), Some("2"), "{output}");
    assert_eq!(lines[5..], ["x", "refused"], "{output}");
    // All of it is gone with its last user.
    let output = guest
        .shell("after", vec![], &[], "grep HugePages_Total /proc/meminfo; grep -c /run/g /proc/mounts")
        .await;
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["HugePages_Total:", "0", "0"]);
    guest.end().await;
}

#[tokio::test]
async fn a_copy_follows_its_source_and_memory_can_be_resized() {
    let Some(plan) = Plan::new() else { return };
    let guest = plan.boot().await;
    let copy = |text: &str| agent::CopyFileRequest {
        path: "/run/shared/config/key".into(),
        file_size: i64::try_from(text.len()).unwrap(),
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data: text.as_bytes().to_vec(),
        ..Default::default()
    };
    guest.agent.copy_file(deadline(), &copy("old")).await.unwrap();
    let storages = vec![
        storage("watchable-bind", "/run/shared/config", "bind", &[], "/run/w/config"),
        storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"], "/run/w/memory"),
    ];
    // Ends when the copy in the container has the new text.
    let script = "cat /run/w/config/key; until grep -q new /run/w/config/key; do usleep 100000; done; echo; \
        cat /run/w/config/key; df -k /run/w/memory | tail -1 | awk '{print $2}'";
    guest.start("watch", storages, &["/run/w/config", "/run/w/memory"], script).await.unwrap();
    let larger = storage("ephemeral", "tmpfs", "tmpfs", &["size=3m"], "/run/w/memory");
    let update = agent::UpdateEphemeralMountsRequest { storages: vec![larger], ..Default::default() };
    guest.agent.update_ephemeral_mounts(deadline(), &update).await.unwrap();
    guest.agent.copy_file(deadline(), &copy("the new one")).await.unwrap();
    let output = guest.output("watch").await;
    assert_eq!(output.split_whitespace().collect::<Vec<_>>(), ["old", "the", "new", "one3072"]);
    guest.end().await;
}

/// Storages mounted before the one that fails are unmounted again, and a second user keeps one alive.
#[tokio::test]
async fn storages_are_counted_and_those_of_a_failed_request_are_undone() {
    let Some(plan) = Plan::new() else { return };
    let guest = plan.boot().await;
    let memory = || storage("ephemeral", "tmpfs", "tmpfs", &[], "/run/c/memory");
    guest.start("first", vec![memory()], &["/run/c"], "exec sleep 600").await.unwrap();
    let absent = storage("scsi", "0:77", "erofs", &[], "/run/c/absent");
    let other = storage("ephemeral", "tmpfs", "tmpfs", &[], "/run/c/other");
    let failed = guest.start("failed", vec![memory(), other, absent], &[], "true").await;
    assert_eq!(code(failed), ttrpc::Code::INTERNAL);
    let mounts = "awk '$2 ~ \"^/run/c\" { print $2 }' /proc/mounts | sort -u";
    let output = guest.shell("second", vec![memory()], &["/run/c"], mounts).await;
    assert_eq!(output, "/run/c\n/run/c/memory\n");
    guest.end().await;
}

/// What the containers of a pod have in common outlives each of them, but not the sandbox, nor a failed creation.
#[tokio::test]
async fn what_is_shared_stays_until_the_sandbox_ends() {
    let Some(mut plan) = Plan::new() else { return };
    let disk = images::filesystem(plan.directory(), "ext4", "ext", 16);
    plan.disk(&disk, 0x11, true);
    let guest = plan.boot().await;
    let shared = |storage: agent::Storage| agent::Storage { shared: true, ..storage };
    let storages = || {
        vec![
            shared(storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"], "/run/k/memory")),
            shared(storage("local", "local", "local", &["mode=0777"], "/run/k/local")),
            shared(storage("blk", "11", "ext4", &[], "/run/k/disk")),
            storage("ephemeral", "tmpfs", "tmpfs", &["size=1m"], "/run/k/own"),
        ]
    };
    let mounts = "awk '$2 ~ \"^/run/k(/|$)\" { print $2 }' /proc/mounts | sort -u";
    let absent = storage("bind", "/run/absent", "bind", &[], "/run/k/absent");
    let failed = guest.start("failed", [storages(), vec![absent]].concat(), &[], "true").await;
    assert_eq!(code(failed), ttrpc::Code::INTERNAL);
    assert_eq!(
        guest.shell("between", vec![], &["/run"], mounts).await,
        "",
        "a failed creation keeps nothing"
    );

    let write = "cd /run/k; for d in memory local disk own; do echo kept > $d/x; done; echo written";
    assert_eq!(guest.shell("first", storages(), &["/run/k"], write).await, "written\n");
    let output = guest.shell("between", vec![], &["/run/k"], mounts).await;
    assert_eq!(output, "/run/k\n/run/k/disk\n/run/k/memory\n");
    let read = "cd /run/k; cat memory/x local/x disk/x; ls own | wc -l";
    assert_eq!(guest.shell("second", storages(), &["/run/k"], read).await, "kept\nkept\nkept\n0\n");
    let image = std::fs::File::open(&disk).unwrap();
    guest.end().await;
    // `INCOMPAT_RECOVER` of an ext4 that was not unmounted (Linux, Documentation/filesystems/ext4/super.rst).
    let mut features = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&image, &mut features, 1024 + 0x60).unwrap();
    assert_eq!(u32::from_le_bytes(features) & 0x4, 0, "it was unmounted with the sandbox");
}
