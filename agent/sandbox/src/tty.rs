//! From a terminal's master into the pipe that the log is written from.
//!
//! A terminal cannot be looked at without reading it, so its output is moved on, in one system call and
//! never through the agent's memory, into the same kind of pipe that other containers write to.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use coracle_linux::ReadinessFd;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;

use crate::error::{Error, file, system};

/// Bytes moved at once.
const CHUNK: usize = 64 * 1024;

/// Moves everything the terminal shows into `output` until nobody has the terminal open any more; then
/// `output` is closed.
pub(crate) fn forward(master: OwnedFd, output: OwnedFd) -> Result<(), Error> {
    rustix::io::ioctl_fionbio(&master, true).map_err(system("make a terminal non-blocking"))?;
    let master = ReadinessFd::new(master, Interest::READABLE).map_err(system("watch a terminal"))?;
    let output = ReadinessFd::new(output, Interest::WRITABLE).map_err(system("watch a pipe"))?;
    tokio::spawn(async move {
        if let Err(error) = run(&master, &output).await {
            tracing::error!(%error, "a terminal's output is no longer followed");
        }
    });
    Ok(())
}

/// The writing end of the pipe whose reading end this is. A new agent gets only the latter from pause,
/// which must not hold a writing end: the reader would never see the end.
pub(crate) fn writing_end(read: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    let opened = File::options().write(true).open(&path);
    Ok(opened.map_err(file("reopen for writing", path))?.into())
}

async fn run(master: &ReadinessFd, output: &ReadinessFd) -> io::Result<()> {
    loop {
        let mut shown = master.readable().await?;
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match splice(master.get_ref(), None, output.get_ref(), None, CHUNK, flags) {
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                // Either side may be meant: nothing to read, or no room to write.
                Err(Errno::AGAIN) if rustix::io::ioctl_fionread(master.get_ref())? > 0 => {
                    output.writable().await?.clear_ready();
                }
                Err(Errno::AGAIN) => {
                    shown.clear_ready();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
