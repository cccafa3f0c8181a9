//! Files that outlast the machine, written by a thread of their own: a slow disk delays nobody else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use coracle_linux::{PowerLoss, remove_durably, replace_file};
use tokio::sync::oneshot;

/// A file to be written or removed, and who waits for it.
struct Job {
    path: PathBuf,
    /// `None` to remove it.
    bytes: Option<Vec<u8>>,
    done: oneshot::Sender<io::Result<()>>,
}

/// The thread that writes. It ends with the last of those that give it work.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    jobs: Sender<Job>,
}

impl Durable {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, todo) = channel::<Job>();
        thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
            while let Ok(Job { path, bytes, done }) = todo.recv() {
                let result = match bytes {
                    Some(bytes) => write(&path, &bytes),
                    None => remove_durably(&path).map(drop),
                };
                // Whoever waited may have gone.
                let _ = done.send(result);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Has the file be this, durably. It is written once this was polled, also when the call is dropped.
    pub(super) async fn write(&self, path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
        self.run(path, Some(bytes)).await
    }

    /// Removes the file, after whatever was to be written before.
    pub(super) async fn remove(&self, path: PathBuf) -> io::Result<()> {
        self.run(path, None).await
    }

    async fn run(&self, path: PathBuf, bytes: Option<Vec<u8>>) -> io::Result<()> {
        let gone = || io::Error::other("the thread that writes it has ended");
        let (done, result) = oneshot::channel();
        self.jobs.send(Job { path, bytes, done }).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The next agent writes once more what this one has written; it need not wear the disk.
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    Ok(replace_file(path, 0o600, PowerLoss::New, bytes)?)
}
