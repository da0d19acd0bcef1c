//! The command of a process: found as a shell finds it, and become.

use super::protocol::Failure;
use crate::sys;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access, execve};
use oci_spec::runtime::Process;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where commands are looked for when the process has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that the first argument of `process` means. Call it where execve(2) will be called: within
/// the container, as its user, in its working directory.
pub(super) fn command(process: &Process) -> Result<PathBuf, Failure> {
    let arguments = process.args().iter().flatten();
    let name = arguments.map(String::as_str).next().unwrap_or_default();
    let path = process.env().iter().flatten().find_map(|entry| entry.strip_prefix("PATH="));
    find(name, path.unwrap_or(DEFAULT_PATH))
}

/// Becomes the program `file` with the arguments of `process`; returns only why that failed.
pub(super) fn become_program(file: &Path, process: &Process, environment: Vec<OsString>) -> Failure {
    let text = |bytes: &[u8]| CString::new(bytes);
    let arguments = process.args().iter().flatten().map(|argument| text(argument.as_bytes()));
    let environment = environment.iter().map(|entry| text(entry.as_bytes()));
    let (Ok(arguments), Ok(environment), Ok(path)) = (
        arguments.collect::<Result<Vec<_>, _>>(),
        environment.collect::<Result<Vec<_>, _>>(),
        text(file.as_os_str().as_bytes()),
    ) else {
        return Failure::Other("an argument or a variable contains a NUL byte".to_owned());
    };
    // Rust programs ignore SIGPIPE, and an ignored signal stays so across execve(2).
    let _ = sys::reset_signal(Signal::SIGPIPE);
    let Err(error) = execve(&path, &arguments, &environment);
    let _ = sys::ignore_signal(Signal::SIGPIPE);
    let name = file.display().to_string();
    match error {
        // The file was there a moment ago.
        Errno::ENOENT => Failure::NoInterpreter(name),
        other => Failure::NotExecutable(name, other.desc().to_owned()),
    }
}

/// Looks for `name` as execvp(3) does: a name with a slash is a path, any other is looked for in the
/// directories of `path`.
fn find(name: &str, path: &str) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return check(name, PathBuf::from(name));
    }
    let mut best = Failure::NotFound(name.to_owned());
    for directory in path.split(':') {
        // An empty entry is the working directory.
        let directory = if directory.is_empty() { "." } else { directory };
        match check(name, Path::new(directory).join(name)) {
            Ok(path) => return Ok(path),
            Err(Failure::NotFound(_)) => {}
            Err(failure) => best = failure,
        }
    }
    Err(best)
}

fn check(name: &str, path: PathBuf) -> Result<PathBuf, Failure> {
    let cannot = |why: String| Failure::NotExecutable(name.to_owned(), why);
    match std::fs::metadata(&path) {
        Ok(file) if file.is_dir() => return Err(cannot("it is a directory".to_owned())),
        Ok(file) if !file.is_file() => return Err(cannot("it is no regular file".to_owned())),
        Ok(_) => {}
        Err(error) => {
            let is_absent = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
            return Err(if is_absent {
                Failure::NotFound(name.to_owned())
            } else {
                cannot(error.to_string())
            });
        }
    }
    match access(&path, AccessFlags::X_OK) {
        Ok(()) => Ok(path),
        Err(error) => Err(cannot(error.desc().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_command_is_found_as_a_shell_finds_it() {
        let root = tempfile::tempdir().unwrap();
        let (bin, sbin) = (root.path().join("bin"), root.path().join("sbin"));
        let put = |path: &Path, mode| {
            std::fs::write(path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for directory in [&bin, &sbin] {
            std::fs::create_dir(directory).unwrap();
        }
        put(&bin.join("both"), 0o644);
        put(&sbin.join("both"), 0o755);
        put(&bin.join("data"), 0o644);
        std::fs::create_dir(sbin.join("directory")).unwrap();
        let path = format!("{}:{}:/absent", bin.display(), sbin.display());

        assert_eq!(find("both", &path).unwrap(), sbin.join("both"));
        assert_eq!(find(&sbin.join("both").display().to_string(), "").unwrap(), sbin.join("both"));
        for name in ["data", "directory"] {
            assert!(matches!(find(name, &path), Err(Failure::NotExecutable(..))), "{name}");
        }
        let beyond_file = bin.join("data/x").display().to_string();
        for name in ["nothing", "/absent/nothing", &beyond_file] {
            assert!(matches!(find(name, &path), Err(Failure::NotFound(_))), "{name}");
        }
    }
}
