//! Disks with file systems, made by the programs that make them everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a program of the host to its end.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Where Debian has what only root needs.
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A directory with one file `name` that has `name` as its text.
pub(crate) fn tree(directory: &Path, name: &str) -> PathBuf {
    let tree = directory.join(format!("{name}.tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join(name), format!("{name}\n")).unwrap();
    tree
}

/// An image of `size` MiB with a file system of its own, on whose root is a file of its name.
pub(crate) fn filesystem(directory: &Path, kind: &str, name: &str, size: u64) -> PathBuf {
    let image = directory.join(name);
    let text = image.to_str().unwrap();
    let tree = tree(directory, &format!("{name}-file"));
    let tree = tree.to_str().unwrap();
    match kind {
        "squashfs" => drop(run("mksquashfs", &[tree, text, "-quiet", "-no-progress", "-all-root"], "")),
        "erofs" => drop(run("mkfs.erofs", &["--quiet", "--all-root", text, tree], "")),
        _ => {
            fs::File::create(&image).unwrap().set_len(size << 20).unwrap();
            match kind {
                "ext4" => drop(run("mkfs.ext4", &["-q", "-b", "4096", "-d", tree, text], "")),
                "xfs" => drop(run("mkfs.xfs", &["-q", text], "")),
                "swap" => drop(run("mkswap", &[text], "")),
                other => panic!("no {other}"),
            }
        }
    }
    image
}

/// A disk with a GPT that has `parts` as partitions 1, 2, …
pub(crate) fn partitioned(directory: &Path, parts: &[PathBuf]) -> PathBuf {
    const SECTOR: u64 = 512;
    let disk = directory.join("partitioned");
    let file = fs::File::create(&disk).unwrap();
    let (mut script, mut start) = ("label: gpt\n".to_owned(), 2048);
    for part in parts {
        let bytes = fs::read(part).unwrap();
        let sectors = (bytes.len() as u64).div_ceil(SECTOR);
        script += &format!("start={start}, size={sectors}\n");
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, start * SECTOR).unwrap();
        start += sectors.next_multiple_of(2048);
    }
    file.set_len((start + 2048) * SECTOR).unwrap();
    run("sfdisk", &["--quiet", disk.to_str().unwrap()], &script);
    disk
}

/// Where the hashes of a layer are, and what they come to.
pub(crate) struct Hashes {
    pub(crate) offset: u64,
    pub(crate) root: String,
    pub(crate) salt: String,
}

/// Appends the hashes of dm-verity to `image`.
pub(crate) fn add_hashes(image: &Path, superblock: bool) -> Hashes {
    let size = fs::metadata(image).unwrap().len().next_multiple_of(4096);
    fs::File::options().write(true).open(image).unwrap().set_len(size).unwrap();
    let text = image.to_str().unwrap();
    let mut arguments = vec!["format".to_owned(), format!("--hash-offset={size}")];
    let blocks = format!("--data-blocks={}", size / 4096);
    arguments.extend([blocks, text.into(), text.into()]);
    if !superblock {
        arguments.push("--no-superblock".into());
    }
    let output = run("veritysetup", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let value = |key: &str| {
        let value = output.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or_else(|| panic!("no {key} in {output}")).trim().to_owned()
    };
    Hashes { offset: size, root: value("Root hash:"), salt: value("Salt:") }
}
