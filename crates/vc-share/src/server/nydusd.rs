//! nydusd: how it is started, and how it comes to serve a directory.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Signal, getrlimit, pidfd_send_signal};
use tokio::process::Command;
use vc_types::{Deadline, HostPath};

use super::{Server, ServerConfig, ServerError, find_nydusd};
use crate::sys;

/// How many files it may have open at most: each that the guest knows is one. It asks for as many by itself, and ends
/// where it may not.
const MOST_FILES: u64 = 1_000_000;

/// How long a killed one may take to end when it could not serve.
const END_TIME: Duration = Duration::from_secs(5);

/// Where it is asked things.
pub(super) fn api_socket(socket: &HostPath) -> HostPath {
    HostPath::new(socket.as_path().with_extension("api")).expect("beside a checked path")
}

/// Starts it, waits until it serves, and has it serve the directory.
pub(super) async fn start(
    config: &ServerConfig,
    directory: &HostPath,
    socket: &HostPath,
    deadline: Deadline,
) -> Result<Server, ServerError> {
    let program = config.program.clone().map_or_else(find_nydusd, Ok)?;
    let failed = |source| ServerError::Socket { socket: socket.clone(), source };
    // It would take the place of one that is there.
    if socket.as_path().exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let (dir, name) = place(socket);
    let files = getrlimit(Resource::Nofile).maximum.map_or(MOST_FILES, |most| most.min(MOST_FILES));
    // It works elsewhere. A bare name is looked for in `PATH`.
    let is_path = program.components().nth(1).is_some();
    let program = if is_path { std::path::absolute(&program).unwrap_or(program) } else { program };
    let mut command = Command::new(program);
    command.args(["virtiofs", "--log-level", "warn", "--rlimit-nofile", &files.to_string()]);
    // Its last words are for a log, which has no colours.
    command.env("FLEXI_LOGGER_PALETTE", "-;-;-;-;-");
    // Names in its working directory, by which it is found when nobody knows it.
    command.current_dir(dir).arg("--sock").arg(name);
    command.arg("--apisock").arg(Path::new(name).with_extension("api"));
    sys::limit_to_files(&mut command);
    let news = sys::NewFiles::watch(dir).map_err(failed)?;
    let server = Server::spawn(config, command, socket)?;
    let api = server.nydus().expect("it is one");
    let serving = async {
        api.ready(&news, deadline).await?;
        api.mount_shared(directory, deadline).await
    };
    let served = tokio::select! {
        serving = serving => serving.map_err(ServerError::from),
        end = server.exited() => Err(ServerError::Ended(end)),
    };
    if let Err(error) = served {
        // It may be about to make its sockets, so they go after it.
        let _ = server.stop(Deadline::after(END_TIME)).await;
        return Err(error);
    }
    Ok(server)
}

/// Ends the nydusd that works in the directory of its sockets.
pub(super) async fn end_unknown(socket: &HostPath) {
    let (dir, name) = place(socket);
    // As the system tells it, without links.
    let Ok(dir) = fs::canonicalize(dir) else { return };
    let is_it = |pid: u32| {
        let in_proc = |what| format!("/proc/{pid}/{what}");
        let works_here = fs::read_link(in_proc("cwd")).is_ok_and(|cwd| cwd == dir);
        let names = |line: Vec<u8>| line.split(|byte| *byte == 0).any(|word| word == name.as_encoded_bytes());
        works_here && fs::read(in_proc("cmdline")).is_ok_and(names)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| is_it(*pid)) {
        // Behind the handle: the number may be another's by now.
        let Ok(handle) = sys::open_process(pid) else { continue };
        if !is_it(pid) {
            continue;
        }
        // The only error is that it has ended, which is what is wanted.
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        if let Ok(ended) = sys::watch(handle) {
            let _ = ended.readable().await;
        }
    }
}

fn place(socket: &HostPath) -> (&Path, &std::ffi::OsStr) {
    let path = socket.as_path();
    (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default())
}
