//! What nydusd is asked to do while it serves, by HTTP at a Unix socket (nydus, `api/openapi/nydus-api-v1.yaml`).

#[cfg(feature = "fake")]
pub mod fake;
mod http;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use vc_types::{ContainerId, Deadline, HostPath};

use crate::sys::NewFiles;
use http::HttpError;

/// The state of a nydusd that serves.
const RUNNING: &str = "RUNNING";

/// Where the shared directory is in what nydusd serves.
const SHARED: &str = "/containers";

/// How long until a nydusd that does not serve yet is asked again: it tells nobody when it does.
const AGAIN: Duration = Duration::from_millis(10);

/// What nydusd is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NydusStep {
    /// What it is doing.
    Inspect,
    /// To serve a directory.
    Share(HostPath),
    /// To serve the image with this bootstrap.
    Mount(HostPath),
    /// To serve the image of a container no more.
    Unmount(ContainerId),
}

impl fmt::Display for NydusStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inspect => f.write_str("tell what it is doing"),
            Self::Share(directory) => write!(f, "serve the directory {directory}"),
            Self::Mount(bootstrap) => write!(f, "mount the image {bootstrap}"),
            Self::Unmount(container) => write!(f, "unmount the image of container {container}"),
        }
    }
}

/// Why nydusd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NydusError {
    /// It said no.
    #[error("nydusd refused to {step} ({status}): {message}")]
    Refused {
        /// What it was asked.
        step: NydusStep,
        /// The status of HTTP.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// It did not answer in time. Nobody knows whether it was done.
    #[error("nydusd did not {step} in time")]
    Deadline {
        /// What it was asked.
        step: NydusStep,
    },
    /// It cannot be reached, or went away. Nobody knows whether it was done.
    #[error("cannot have nydusd {step}")]
    Unreachable {
        /// What it was asked.
        step: NydusStep,
        /// What the system said.
        source: io::Error,
    },
    /// It answered something else. Nobody knows whether it was done.
    #[error("asked to {step}, nydusd did not answer as it should: {why}")]
    Malformed {
        /// What it was asked.
        step: NydusStep,
        /// What is wrong with the answer.
        why: &'static str,
    },
}

/// What nydusd is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NydusInfo {
    /// Its state; `RUNNING` once it serves.
    pub state: String,
    /// Where something is mounted in what it serves, and what: `Rafs`, or `PassthroughFs` for a directory.
    pub mounts: BTreeMap<String, String>,
}

/// A nydusd, by the socket at which it is asked things. Clones are the same.
///
/// Each question has a connection of its own. An answer has an end: in time, and in size.
///
/// # Cancel safety
/// What is asked may be done all the same when a future of any method is dropped.
#[derive(Clone, Debug)]
pub struct NydusApi {
    socket: HostPath,
}

impl NydusApi {
    /// The nydusd that was told `--apisock SOCKET`.
    pub const fn new(socket: HostPath) -> Self {
        Self { socket }
    }

    /// What it is doing.
    ///
    /// # Errors
    /// [`NydusError`].
    pub async fn info(&self, deadline: Deadline) -> Result<NydusInfo, NydusError> {
        let step = NydusStep::Inspect;
        let answer = self.ask(&step, ("GET", "daemon"), None, deadline).await?;
        info_of(&answer).ok_or(NydusError::Malformed { step, why: "it has no state" })
    }

    /// Has it serve `directory` as `containers`.
    ///
    /// # Errors
    /// [`NydusError`].
    pub async fn mount_shared(&self, directory: &HostPath, deadline: Deadline) -> Result<(), NydusError> {
        let step = NydusStep::Share(directory.clone());
        self.mount(&step, SHARED, ("passthrough_fs", directory, ""), deadline).await
    }

    /// Has it serve the RAFS image with this bootstrap, read-only, as `rafs/CONTAINER/lowerdir`, or with `-NUMBER`
    /// behind it when that is not 0. `config` is of nydusd: JSON that says where the image's data is, and where it is
    /// kept.
    ///
    /// A guest keeps for ever what it has seen of an image, so another one for the same container needs another number.
    ///
    /// # Errors
    /// [`NydusError`], also when an image is there.
    pub async fn mount_rafs(
        &self,
        (container, number): (&ContainerId, u32),
        bootstrap: &HostPath,
        config: &str,
        deadline: Deadline,
    ) -> Result<(), NydusError> {
        let step = NydusStep::Mount(bootstrap.clone());
        self.mount(&step, &rafs(container, number), ("rafs", bootstrap, config), deadline).await
    }

    /// Has it serve this image of a container no more. That there is none is fine. May be called again.
    ///
    /// # Errors
    /// [`NydusError`].
    pub async fn unmount_rafs(
        &self,
        (container, number): (&ContainerId, u32),
        deadline: Deadline,
    ) -> Result<(), NydusError> {
        let step = NydusStep::Unmount(container.clone());
        let at = rafs(container, number);
        match self.ask(&step, ("DELETE", &mount(&at)), None, deadline).await {
            // It says so of whatever it cannot do, and only in words that there is none.
            Err(refused @ NydusError::Refused { .. }) => match self.info(deadline).await {
                Ok(info) if !info.mounts.contains_key(&at) => Ok(()),
                _ => Err(refused),
            },
            answer => answer.map(drop),
        }
    }

    /// Waits until it serves. `news` are of the directory of its socket.
    pub(crate) async fn ready(&self, news: &NewFiles, deadline: Deadline) -> Result<(), NydusError> {
        let unreachable = |source| NydusError::Unreachable { step: NydusStep::Inspect, source };
        let ready = async {
            loop {
                match self.info(deadline).await {
                    Ok(info) if info.state == RUNNING => return Ok(()),
                    Ok(_) => tokio::time::sleep(AGAIN).await,
                    Err(NydusError::Unreachable { source, .. }) => match source.kind() {
                        io::ErrorKind::NotFound => news.appeared().await.map_err(unreachable)?,
                        // The socket is there a moment before it listens.
                        io::ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
                        _ => return Err(unreachable(source)),
                    },
                    Err(error) => return Err(error),
                }
            }
        };
        let ready = tokio::time::timeout(deadline.remaining(), ready).await;
        ready.unwrap_or(Err(NydusError::Deadline { step: NydusStep::Inspect }))
    }

    async fn mount(
        &self,
        step: &NydusStep,
        at: &str,
        (fs_type, source, config): (&str, &HostPath, &str),
        deadline: Deadline,
    ) -> Result<(), NydusError> {
        // What is no UTF-8 would be another path.
        let source = source.as_path().to_str().ok_or_else(|| NydusError::Unreachable {
            step: step.clone(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "its path is no UTF-8"),
        })?;
        let body = json!({"fs_type": fs_type, "source": source, "config": config}).to_string();
        self.ask(step, ("POST", &mount(at)), Some(&body), deadline).await.map(drop)
    }

    /// Asks, and gives the body of an answer that is no refusal.
    async fn ask(
        &self,
        step: &NydusStep,
        (method, path): (&str, &str),
        body: Option<&str>,
        deadline: Deadline,
    ) -> Result<Vec<u8>, NydusError> {
        let path = format!("/api/v1/{path}");
        let exchange = http::exchange(&self.socket, method, &path, body);
        let step = || step.clone();
        let answer = match tokio::time::timeout(deadline.remaining(), exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(HttpError::Stream(source))) => {
                return Err(NydusError::Unreachable { step: step(), source });
            }
            Ok(Err(HttpError::Malformed(why))) => return Err(NydusError::Malformed { step: step(), why }),
            Err(_) => return Err(NydusError::Deadline { step: step() }),
        };
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        Err(NydusError::Refused { step: step(), status: answer.status, message: words_of(&answer.body) })
    }
}

fn rafs(container: &ContainerId, number: u32) -> String {
    match number {
        0 => format!("/rafs/{container}/lowerdir"),
        number => format!("/rafs/{container}/lowerdir-{number}"),
    }
}

/// The path of the API for what is mounted there. Of what an id may hold, only the sign for a blank has a meaning.
fn mount(at: &str) -> String {
    format!("mount?mountpoint={}", at.replace('+', "%2B"))
}

fn info_of(answer: &[u8]) -> Option<NydusInfo> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let state = answer.get("state")?.as_str()?.to_owned();
    let mounts = answer.get("backend_collection")?.as_object()?.iter().map(|(at, mount)| {
        let kind = mount.get("backend_type").and_then(Value::as_str).unwrap_or_default();
        (at.clone(), kind.to_owned())
    });
    Some(NydusInfo { state, mounts: mounts.collect() })
}

/// The message in the JSON of a refusal, or else the start of what there is; on one line.
fn words_of(body: &[u8]) -> String {
    let json = serde_json::from_slice::<Value>(body).ok();
    let message = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().take(1000).map(plain).collect();
    if text.trim().is_empty() { "it did not say why".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nydusd 2.2.0.
    #[test]
    fn what_it_says_is_understood() {
        let refused = br#"{"code":"UNDEFINED","message":"Mount(MountFilesystem(Other(\"object or filesystem doesn't exist\")))"}"#;
        assert_eq!(
            words_of(refused),
            r#"Mount(MountFilesystem(Other("object or filesystem doesn't exist")))"#
        );
        assert_eq!(words_of(b"<html>\n"), "<html> ");
        assert_eq!(words_of(b""), "it did not say why");
        let info = br#"{"version":{"profile":"debug"},"id":null,"supervisor":null,"state":"RUNNING","backend_collection":
            {"/containers":{"backend_type":"PassthroughFs","mountpoint":"/containers","config":null}}}"#;
        let info = info_of(info).unwrap();
        assert_eq!((info.state.as_str(), &*info.mounts["/containers"]), ("RUNNING", "PassthroughFs"));
        assert_eq!(info_of(br#"{"state": 1, "backend_collection": {}}"#), None);
    }
}
