//! The kernel's log, for the errors of GPUs that the driver writes there.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use coracle_linux::ReadinessFd;
use tokio::io::Interest;

use super::xid::{Xid, parse};

/// A record of /dev/kmsg is never longer.
const RECORD: usize = 8192;

/// Errors that the driver writes from now on.
pub(crate) struct KernelLog {
    file: ReadinessFd,
    record: Vec<u8>,
}

// === impl KernelLog ===

impl KernelLog {
    /// Opens the log at its end.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let mut file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: ReadinessFd::new(file.into(), Interest::READABLE)?, record: vec![0; RECORD] })
    }

    /// Waits for the next error. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<Xid> {
        loop {
            let record = &mut self.record;
            let read = self
                .file
                .async_io(Interest::READABLE, |file| Ok(rustix::io::read(file, &mut **record)?))
                .await;
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let text = String::from_utf8_lossy(self.record.get(..length).unwrap_or_default());
                    if let Some(xid) = text.lines().next().and_then(parse) {
                        return Ok(xid);
                    }
                }
                // Records were overwritten before they were read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error),
            }
        }
    }
}
