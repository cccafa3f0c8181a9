//! Log lines with their fields for the journal, where that is what standard error is: systemd-journald's native protocol.
//!
//! `MESSAGE` has the fields as text, too: `journalctl` shows nothing else, and why something failed is a field.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Of the names of fields, so that none is one of the journal's own: `CORACLE_POD`.
const PREFIX: &str = "CORACLE_";

/// Writes events to the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// What writes to the journal, if that is what standard error is.
///
/// # Errors
/// When it is, and cannot be reached.
pub(crate) fn layer() -> io::Result<Option<Journal>> {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = stream.split_once(':') else { return Ok(None) };
    let stderr = fstat(io::stderr())?;
    if device != stderr.st_dev.to_string() || inode != stderr.st_ino.to_string() {
        return Ok(None);
    }
    Journal::at(Path::new(SOCKET)).map(Some)
}

// === impl Journal ===

impl Journal {
    fn at(path: &Path) -> io::Result<Self> {
        let journal = Self { socket: UnixDatagram::unbound()?, address: SocketAddr::from_pathname(path)? };
        // An entry without fields is none: it only tells whether somebody is there.
        journal.socket.send_to_addr(&[], &journal.address)?;
        Ok(journal)
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        match self.socket.send_to_addr(entry, &self.address) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => {
                self.send_file(entry)
            }
            Err(error) => Err(error),
        }
    }

    /// What is too long for a datagram is sent as a sealed file in memory.
    fn send_file(&self, entry: &[u8]) -> io::Result<()> {
        let mut file =
            File::from(memfd_create("coracle-journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.write_all(entry)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let path = self.address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files: [BorrowedFd<'_>; 1] = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg_addr(
            &self.socket,
            &SocketAddrUnix::new(path)?,
            &[IoSlice::new(&[])],
            &mut control,
            SendFlags::empty(),
        )?;
        Ok(())
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let text = fields.text();
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "PRIORITY", priority(*metadata.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", "coracle");
        put(&mut entry, "MESSAGE", &text);
        put(&mut entry, &format!("{PREFIX}TARGET"), metadata.target());
        if let Some(file) = metadata.file() {
            put(&mut entry, "CODE_FILE", file);
        }
        if let Some(line) = metadata.line() {
            put(&mut entry, "CODE_LINE", &line.to_string());
        }
        for (name, value) in &fields.others {
            put(&mut entry, &field_name(name), value);
        }
        if self.send(&entry).is_err() {
            // Standard error may still be heard.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// The numbers of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Letters, digits and underscores; 64 at most.
fn field_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(plain)).take(64).collect()
}

/// A field with a line break in it is told with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

// === impl Fields ===

impl Fields {
    /// As on a terminal: the message, then the fields.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.others {
            let _ = write!(text, "{}{name}={value}", if text.is_empty() { "" } else { " " });
        }
        text
    }

    fn push(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.others.push((name.strip_prefix("log.").unwrap_or(name), value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What the journal gets of what is done with it as the log.
    fn received(log: impl FnOnce()) -> (tempfile::TempDir, UnixDatagram) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::at(&path).unwrap();
        assert_eq!(journal.recv(&mut [0; 8]).unwrap(), 0);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        (directory, journal)
    }

    fn text(journal: &UnixDatagram) -> String {
        let mut buffer = vec![0; 1 << 16];
        let length = journal.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn an_entry_has_its_fields_and_says_them_in_its_message() {
        let (_directory, journal) = received(|| {
            tracing::warn!(pod = %"default/web", error = %"a\nb", priority = 7, "not taken over");
        });
        let entry = text(&journal);
        for line in [
            "PRIORITY=4\n",
            "SYSLOG_IDENTIFIER=coracle\n",
            "MESSAGE\n\u{33}\0\0\0\0\0\0\0not taken over pod=default/web error=a\nb priority=7\n",
            "CORACLE_POD=default/web\n",
            "CORACLE_ERROR\n\u{3}\0\0\0\0\0\0\0a\nb\n",
            "CORACLE_PRIORITY=7\n",
        ] {
            assert!(entry.contains(line), "{line:?} in {entry:?}");
        }
    }

    #[test]
    fn a_long_entry_is_sent_as_a_file() {
        let long = "x".repeat(1 << 20);
        let (_directory, journal) = received(|| tracing::info!(long, "much"));
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let flags = rustix::net::RecvFlags::empty();
        rustix::net::recvmsg(&journal, &mut [io::IoSliceMut::new(&mut [0; 8])], &mut control, flags).unwrap();
        let files: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&files[0]));
        let entry = std::fs::read_to_string(path).unwrap();
        assert!(entry.contains(&format!("CORACLE_LONG={long}\n")));
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Journal::at(&directory.path().join("socket")).is_err());
    }

    #[test]
    fn names_of_fields_are_the_journals() {
        assert_eq!(field_name("pod.uid"), "CORACLE_POD_UID");
        assert_eq!(field_name(&"x".repeat(100)).len(), 64);
    }
}
