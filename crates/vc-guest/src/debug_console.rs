//! A console for a person who wants to know what goes on in the guest. It only looks; it changes nothing.
//!
//! The guest image has no shell, so the few commands that a look around needs are built in.

use nix::fcntl::OFlag;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

const HELP: &str = "cat FILE   what is in a file\n\
    ls DIR     what is in a directory\n\
    ps         the processes\n\
    mounts     what is mounted where\n\
    exit       the end of this session\n";

/// The longest line taken, in bytes.
const MAX_LINE: u64 = 8192;

/// The most that `cat` shows, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Answers the commands of `host` until it goes away.
pub(crate) async fn answer(host: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut host = BufReader::new(host);
    loop {
        host.write_all(b"# ").await?;
        let mut line = String::new();
        if (&mut host).take(MAX_LINE).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let (command, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        if command == "exit" {
            return Ok(());
        }
        let (command, argument) = (command.to_owned(), argument.trim().to_owned());
        let answer = tokio::task::spawn_blocking(move || run(&command, &argument)).await;
        host.write_all(&answer.unwrap_or_default()).await?;
    }
}

fn run(command: &str, argument: &str) -> Vec<u8> {
    let answer = match command {
        "" => Ok(Vec::new()),
        "cat" => cat(Path::new(argument)),
        "mounts" => cat(Path::new("/proc/self/mountinfo")),
        "ls" => list(Path::new(argument)),
        "ps" => processes(),
        _ => Ok(HELP.into()),
    };
    answer.unwrap_or_else(|error| format!("{argument}: {error}\n").into_bytes())
}

fn cat(path: &Path) -> std::io::Result<Vec<u8>> {
    // A pipe without a writer, or a terminal, must not hold the console up.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let mut contents = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut contents)?;
    Ok(contents)
}

fn list(directory: &Path) -> std::io::Result<Vec<u8>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let mark = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        names.push(format!("{}{mark}\n", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names.concat().into_bytes())
}

fn processes() -> std::io::Result<Vec<u8>> {
    let mut pids: Vec<u32> = std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let mut table = String::new();
    for pid in pids {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        // Threads of the kernel have none.
        if !command.is_empty() {
            let _ = writeln!(table, "{pid:>7} {}", command.trim_end());
        }
    }
    Ok(table.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_answers_until_its_end() {
        let (mut person, guest) = tokio::io::duplex(1 << 20);
        let session = tokio::spawn(answer(guest));
        person
            .write_all(
                b"cat /proc/sys/kernel/ostype\nls /proc/self/task\n\nps\nwhat\ncat /nonexistent\nexit\n",
            )
            .await
            .unwrap();
        session.await.unwrap().unwrap();
        let mut text = String::new();
        person.read_to_string(&mut text).await.unwrap();
        for part in ["# Linux\n", "/\n", "the processes\n", "/nonexistent: No such file"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(text.lines().any(|line| line.contains(&std::process::id().to_string())), "{text}");
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept_forever() {
        let (mut person, guest) = tokio::io::duplex(1 << 20);
        let session = tokio::spawn(answer(guest));
        person.write_all(&[b'x'; 100_000]).await.unwrap();
        drop(person);
        // Nobody reads the answers any more.
        assert!(session.await.unwrap().is_err());
    }
}
