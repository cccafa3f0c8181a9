//! What `tests/vm/guest` does in a VM, asked for over its virtio port.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How a command in the VM ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; 124 where its time was over.
    pub code: i32,
    /// What it wrote, to standard output and standard error.
    pub output: Vec<u8>,
}

/// The connection to the guest.
pub(super) struct Guest {
    port: UnixStream,
    /// What was received and not yet used.
    received: Vec<u8>,
}

/// How long after its command's own time the guest may take to say so.
const GRACE: Duration = Duration::from_secs(60);

impl Guest {
    /// Who answers at the other end.
    pub(super) fn new(port: UnixStream) -> Self {
        Self { port, received: Vec::new() }
    }

    /// Waits until the guest has come up.
    ///
    /// # Errors
    /// When it does not in that time, or ends.
    pub(super) fn wait_ready(&mut self, limit: Duration) -> io::Result<()> {
        let ready = b"@@ready\n";
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = find(&self.received, ready) {
                self.received.drain(..at + ready.len());
                return Ok(());
            }
            self.receive(end)?;
        }
    }

    /// Runs a command with bash in the VM and waits for its end; what it writes is also shown as it comes, if asked for.
    ///
    /// # Errors
    /// When the VM ends meanwhile, or does not answer although the command's time is over.
    pub(super) fn run(
        &mut self,
        command: &str,
        input: &[u8],
        limit: Duration,
        show: bool,
    ) -> io::Result<Ended> {
        // No output holds it by chance.
        let token = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        let head = format!("{token} {} {} {}\n", limit.as_secs().max(1), command.len(), input.len());
        self.port.set_write_timeout(Some(limit + GRACE))?;
        for part in [head.as_bytes(), command.as_bytes(), input] {
            self.port.write_all(part)?;
        }
        let mark = format!("\n@@{token} ");
        let end = Instant::now() + limit + GRACE;
        let mut shown = 0_usize;
        loop {
            // The mark may come in parts: what could be its beginning is looked at again.
            let from = shown.saturating_sub(mark.len());
            let at = find(&self.received[from..], mark.as_bytes()).map(|at| at + from);
            let line = at.and_then(|at| {
                let rest = &self.received[at + mark.len()..];
                let length = rest.iter().position(|byte| *byte == b'\n')?;
                Some((at, at + mark.len() + length + 1))
            });
            let certain = at.unwrap_or(self.received.len().saturating_sub(mark.len())).max(shown);
            if show {
                io::stdout().write_all(&self.received[shown..certain])?;
                io::stdout().flush()?;
            }
            shown = certain;
            if let Some((at, after)) = line {
                let mut output: Vec<u8> = self.received.drain(..after).collect();
                let code = String::from_utf8_lossy(&output[at + mark.len()..]).trim().parse();
                output.truncate(at);
                return Ok(Ended { code: code.map_err(io::Error::other)?, output });
            }
            self.receive(end)?;
        }
    }

    fn receive(&mut self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the VM does not answer"));
        }
        self.port.set_read_timeout(Some(left))?;
        let mut buffer = vec![0; 64 * 1024];
        match self.port.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the VM has ended")),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the VM does not answer"))
            }
            Err(error) => Err(error),
        }
    }
}

fn find(all: &[u8], what: &[u8]) -> Option<usize> {
    all.windows(what.len()).position(|window| window == what)
}
