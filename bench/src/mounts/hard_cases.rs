//! Who answers the hard cases right. Each case is made alone, so that one does not spoil the table for another.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::contenders::finders;

/// A path, and the source of the mount that is visible there; `None` if none is mounted right there.
type Question = (PathBuf, Option<OsString>);

struct Case {
    name: &'static str,
    /// Makes the mounts below a directory.
    make: fn(&Path) -> Result<Question>,
}

const CASES: [Case; 15] = [
    Case { name: "a plain mount", make: |at| named(at, b"plain", b"plain") },
    Case { name: "space in the path", make: |at| named(at, b"sp ace", b"a") },
    Case { name: "newline in the path", make: |at| named(at, b"new\nline", b"a") },
    Case { name: "a\\040b as the path", make: |at| named(at, br"a\040b", b"a") },
    Case { name: "CR, VT, U+00A0 in the path", make: |at| named(at, b"cr\rvt\x0bnb\xc2\xa0sp", b"a") },
    Case { name: "bytes that are not UTF-8", make: |at| named(at, b"latin\xff", b"a") },
    Case { name: "such bytes in another line", make: foreign_bytes },
    Case { name: "space and # in the source", make: |at| named(at, b"m", b"#so urce") },
    Case { name: "empty source", make: |at| named(at, b"m", b"") },
    Case { name: "empty source in another line", make: foreign_empty },
    Case { name: "mounted over", make: mounted_over },
    Case { name: "moved over a later mount", make: moved },
    Case { name: "one put beneath", make: beneath },
    Case { name: "hidden by the parent's mount", make: hidden },
    Case { name: "overlay options over a page", make: long_line },
];

/// Prints the table; fails when vc-mountinfo has a wrong answer.
pub fn run() -> Result<()> {
    println!("\n== hard cases: + right, x wrong, E error ==\n");
    let finders = finders();
    for (number, (name, _)) in finders.iter().enumerate() {
        println!("{:>3} = {name}", number + 1);
    }
    let head: String = (1..=finders.len()).map(|number| format!("{number:>4}")).collect();
    println!("\n{:32}{head}", "");
    let directory = tempfile::Builder::new().prefix("vcb").tempdir()?;
    let at = directory.path();
    let mut wrong = Vec::new();
    for case in &CASES {
        mount(Some("world"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let marks = (case.make)(at).map(|(path, want)| {
            finders
                .iter()
                .map(|(name, find)| {
                    let mark = match find(std::slice::from_ref(&path)) {
                        Ok(found) if found == [want.clone()] => '+',
                        Ok(_) => 'x',
                        Err(_) => 'E',
                    };
                    if mark != '+' && name.starts_with("vc-mountinfo") {
                        wrong.push(format!("{name}: {}", case.name));
                    }
                    format!("{mark:>4}")
                })
                .collect::<String>()
        });
        umount2(at, MntFlags::MNT_DETACH)?;
        println!(
            "{:32}{}",
            case.name,
            marks.unwrap_or_else(|error| format!("  cannot be made here: {error:#}"))
        );
    }
    if wrong.is_empty() { Ok(()) } else { bail!("wrong answers: {}", wrong.join(", ")) }
}

/// A tmpfs with this source at a directory of this name.
fn named(at: &Path, name: &[u8], source: &[u8]) -> Result<Question> {
    let path = at.join(OsStr::from_bytes(name));
    fs::create_dir_all(&path)?;
    let source = OsStr::from_bytes(source);
    mount(Some(source), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok((path, Some(source.to_owned())))
}

fn foreign_bytes(at: &Path) -> Result<Question> {
    named(at, b"latin\xff", b"a")?;
    named(at, b"m", b"plain")
}

fn foreign_empty(at: &Path) -> Result<Question> {
    named(at, b"other", b"")?;
    named(at, b"m", b"plain")
}

fn mounted_over(at: &Path) -> Result<Question> {
    named(at, b"m", b"under")?;
    named(at, b"m", b"over")
}

fn moved(at: &Path) -> Result<Question> {
    let (early, _) = named(at, b"early", b"early")?;
    let (late, _) = named(at, b"late", b"late")?;
    let none = None::<&str>;
    mount(Some(&early), &late, none, MsFlags::MS_MOVE, none)?;
    Ok((late, Some("early".into())))
}

fn hidden(at: &Path) -> Result<Question> {
    let (path, _) = named(at, b"a/b", b"hidden")?;
    named(at, b"a", b"parent")?;
    fs::create_dir(&path)?;
    Ok((path, None))
}

fn long_line(at: &Path) -> Result<Question> {
    // Short names for mount(2), whose options must fit a page; the space makes each longer in the table.
    let names: Vec<_> = (0..60).map(|n| format!("{}{n}", " ".repeat(30))).collect();
    for name in &names {
        fs::create_dir(at.join(name))?;
    }
    let path = at.join("m");
    fs::create_dir(&path)?;
    let options = format!("lowerdir={}", names.join(":"));
    let back = std::env::current_dir()?;
    std::env::set_current_dir(at)?;
    let mounted = mount(Some("long"), &path, Some("overlay"), MsFlags::empty(), Some(&*options));
    std::env::set_current_dir(back)?;
    mounted?;
    Ok((path, Some("long".into())))
}

#[expect(unsafe_code, reason = "two system calls that nix does not wrap")]
fn beneath(at: &Path) -> Result<Question> {
    const CLONE: i32 = 1;
    const FROM_FD_BENEATH: i32 = 0x4 | 0x200;
    let (top, source) = named(at, b"top", b"top")?;
    let (other, _) = named(at, b"other", b"beneath")?;
    let (from, to) = (CString::new(other.as_os_str().as_bytes())?, CString::new(top.as_os_str().as_bytes())?);
    // SAFETY: `from` is a C string that lives through the call.
    let tree =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from.as_ptr(), CLONE | libc::O_CLOEXEC) };
    anyhow::ensure!(tree >= 0, "open_tree: {}", std::io::Error::last_os_error());
    // SAFETY: both names are C strings that live through the call. The handle is left open until the end.
    let moved = unsafe {
        libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), libc::AT_FDCWD, to.as_ptr(), FROM_FD_BENEATH)
    };
    anyhow::ensure!(moved == 0, "move_mount beneath: {}", std::io::Error::last_os_error());
    Ok((top, source))
}
