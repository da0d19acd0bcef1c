//! Images that are made before a container writes to them: a file of a size, with an empty file system in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;
use vc_device::{FileId, PathKind};
use vc_storage::{ImagePlan, MakeFilesystem};
use vc_types::{Deadline, HostPath};

use super::copy::blocking;

/// How much of what a program says is told.
const SAID: usize = 400;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFailed {
    /// A step with the file failed.
    #[error("cannot {step} {path:?}")]
    File {
        /// The step.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program that makes the file system cannot be run.
    #[error("cannot run {program}; it is in the package that has the tools of the file system")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program did not make the file system.
    #[error("{program} made no file system: {said}")]
    Program {
        /// The program.
        program: String,
        /// The end of what it said.
        said: String,
    },
    /// It took too long.
    #[error("{program} did not end in time")]
    Late {
        /// The program.
        program: String,
    },
}

/// Makes an image, and tells which file it is. It has its name only once it is complete: whoever is killed
/// meanwhile leaves no image that looks like one. What has the name already is an error.
pub(crate) async fn make(plan: &ImagePlan, deadline: Deadline) -> Result<FileId, ImageFailed> {
    let new = New::create(plan).await?;
    format(&new.0, &plan.filesystem, deadline).await?;
    let path = plan.path.clone();
    blocking(move || new.finish(&path)).await
}

/// Removes an image that nobody has used. One that is not there is fine.
pub(crate) fn remove(image: &HostPath) -> Result<(), ImageFailed> {
    match fs::remove_file(image) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(ImageFailed::File { step: "remove", path: image.as_path().into(), source })
        }
        _ => Ok(()),
    }
}

/// An image that is not complete; removed when it is dropped.
struct New(PathBuf);

impl New {
    async fn create(plan: &ImagePlan) -> Result<Self, ImageFailed> {
        let mut path = plan.path.as_path().as_os_str().to_owned();
        path.push(".new");
        let (path, size) = (PathBuf::from(path), plan.filesystem.size);
        blocking(move || {
            let failed = |step| {
                let path = path.clone();
                move |source| ImageFailed::File { step, path, source }
            };
            // Of somebody who was killed: nobody else makes images by this name.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("replace")(error));
                }
                _ => {}
            }
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let file = file.map_err(failed("make"))?;
            let new = Self(path.clone());
            file.set_len(size).map_err(failed("make room for"))?;
            Ok(new)
        })
        .await
    }

    fn finish(self, path: &HostPath) -> Result<FileId, ImageFailed> {
        let failed = |step| move |source| ImageFailed::File { step, path: path.as_path().into(), source };
        let file = File::open(&self.0).map_err(failed("open"))?;
        file.sync_all().map_err(failed("write"))?;
        // Unlike a rename, this replaces nothing.
        fs::hard_link(&self.0, path).map_err(failed("make"))?;
        let stat = file.metadata().map_err(failed("look at"))?;
        match PathKind::try_from(&stat) {
            Ok(PathKind::Regular(id)) => Ok(id),
            _ => Err(failed("look at")(io::ErrorKind::InvalidData.into())),
        }
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // By its final name it stays.
        let _ = fs::remove_file(&self.0);
    }
}

async fn format(
    image: &std::path::Path,
    wanted: &MakeFilesystem,
    deadline: Deadline,
) -> Result<(), ImageFailed> {
    let program = format!("mkfs.{}", wanted.fs_type);
    let mut command = Command::new(&program);
    // Whatever is in the file may be overwritten: it is new.
    let (force, uuid) = if wanted.fs_type == "xfs" { ("-f", "-m") } else { ("-F", "-U") };
    command.args(["-q", force]);
    if let Some(wanted_uuid) = &wanted.uuid {
        let value = if uuid == "-m" { format!("uuid={wanted_uuid}") } else { wanted_uuid.clone() };
        command.arg(uuid).arg(value);
    }
    command.arg(image).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(deadline.remaining(), command.output()).await;
    let output = match output {
        Err(_) => return Err(ImageFailed::Late { program }),
        Ok(Err(source)) => return Err(ImageFailed::Run { program, source }),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = said.chars().take(SAID).collect();
    Err(ImageFailed::Program { program, said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
    use std::time::Duration;

    fn plan(path: &std::path::Path, fs_type: &str, size: u64) -> ImagePlan {
        let uuid = Some("6b8f9d2e-1111-4222-8333-abcdefabcdef".to_owned());
        let filesystem = MakeFilesystem { fs_type: fs_type.into(), size, uuid };
        ImagePlan { path: HostPath::new(path).unwrap(), filesystem }
    }

    fn deadline() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    #[tokio::test]
    async fn an_image_is_complete_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (image, new) = (dir.path().join("rwlayer.img"), dir.path().join("rwlayer.img.new"));
        // Left by somebody who was killed.
        fs::write(&new, "half").unwrap();
        let id = make(&plan(&image, "ext4", 16 << 20), deadline()).await.unwrap();
        let stat = image.metadata().unwrap();
        assert_eq!((stat.len(), stat.ino(), stat.nlink()), (16 << 20, id.inode, 1));
        assert_eq!(stat.permissions().mode() & 0o777, 0o600);
        let mut magic = [0; 2];
        File::open(&image).unwrap().read_exact_at(&mut magic, 1024 + 56).unwrap();
        assert_eq!(u16::from_le_bytes(magic), 0xef53, "ext4's");
        // What is there is never made anew, and a failure leaves nothing.
        let there = make(&plan(&image, "ext4", 16 << 20), deadline()).await.unwrap_err();
        assert!(matches!(there, ImageFailed::File { step: "make", .. }), "{there:?}");
        assert_eq!(image.metadata().unwrap().ino(), id.inode);
        remove(&HostPath::new(&image).unwrap()).unwrap();
        remove(&HostPath::new(&image).unwrap()).unwrap();
        let small = make(&plan(&image, "ext4", 512), deadline()).await.unwrap_err();
        assert!(matches!(small, ImageFailed::Program { .. }), "{small:?}");
        let late = make(&plan(&image, "ext4", 16 << 20), Deadline::after(Duration::ZERO)).await.unwrap_err();
        assert!(matches!(late, ImageFailed::Late { .. }), "{late:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
