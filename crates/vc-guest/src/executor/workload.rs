//! The last steps within the container: find the command, and become it.

use super::protocol::Failure;
use crate::sys;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, access, execv};
use std::ffi::CString;
use std::io::{PipeWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where commands are looked for when the process has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs within the container, as its user, with its mounts, in its working directory; so what it
/// finds is what execve(2) will find.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Says to the executor what went wrong, as a value and not as a text.
    pub(super) report: Arc<PipeWriter>,
}

impl Executor for Workload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        command(spec).map(drop).map_err(|failure| {
            self.tell(&failure);
            ExecutorValidationError::ArgValidationError(failure.to_string())
        })
    }

    /// Never returns. When execve(2) fails the exit code is that of a shell: 127 for a command that
    /// is not there, 126 for one that cannot be executed (POSIX, Shell Command Language, 2.8.2).
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match command(spec) {
            Ok(path) => replace_process(&path, spec),
            Err(failure) => failure,
        };
        self.tell(&failure);
        let _ = writeln!(std::io::stderr(), "vc: {failure}");
        let is_absent = matches!(failure, Failure::NotFound(_) | Failure::NoInterpreter(_));
        std::process::exit(if is_absent { 127 } else { 126 })
    }
}

impl Workload {
    fn tell(&self, failure: &Failure) {
        let text = serde_json::to_vec(failure).expect("a failure is plain data");
        // Nobody listens any more once the container was created.
        let _ = (&*self.report).write_all(&text);
    }
}

/// The file that the process's first argument means.
fn command(spec: &Spec) -> Result<PathBuf, Failure> {
    let process = spec.process().as_ref();
    let arguments = process.and_then(|process| process.args().as_ref());
    let name = arguments.and_then(|arguments| arguments.first()).map_or("", String::as_str);
    let environment = process.and_then(|process| process.env().as_ref());
    let path = environment.into_iter().flatten().find_map(|entry| entry.strip_prefix("PATH="));
    find(name, path.unwrap_or(DEFAULT_PATH))
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

/// Becomes the command; returns only why that failed.
fn replace_process(path: &Path, spec: &Spec) -> Failure {
    let arguments = spec.process().as_ref().and_then(|process| process.args().as_ref());
    let arguments = arguments.into_iter().flatten().map(|argument| CString::new(argument.as_bytes()));
    let (Ok(arguments), Ok(file)) =
        (arguments.collect::<Result<Vec<_>, _>>(), CString::new(path.as_os_str().as_bytes()))
    else {
        return Failure::Other("an argument contains a NUL byte".to_owned());
    };
    // Rust programs ignore SIGPIPE, and an ignored signal stays so across execve(2).
    let _ = sys::reset_signal(Signal::SIGPIPE);
    let Err(error) = execv(&file, &arguments);
    let _ = sys::ignore_signal(Signal::SIGPIPE);
    let name = path.display().to_string();
    match error {
        // The file was there a moment ago.
        Errno::ENOENT => Failure::NoInterpreter(name),
        other => Failure::NotExecutable(name, other.desc().to_owned()),
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
