//! What the service manager is told: sd_notify(3).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long one that is busy is waited for. One that hangs would not hear it either.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the service manager. Without one nothing is told, and that is no failure.
#[derive(Clone, Debug)]
pub(crate) struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    /// Whether it was told that the agent is ready.
    told_ready: Arc<AtomicBool>,
}

// === impl Notifier ===

impl Notifier {
    /// To the socket that `NOTIFY_SOCKET` names.
    pub(super) fn new(address: Option<OsString>) -> Self {
        let socket = address.and_then(|address| match connect(address.as_bytes()) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, ?address, "the service manager cannot be told anything");
                None
            }
        });
        Self { socket, told_ready: Arc::default() }
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// The agent has taken over the pods there were, and has read the manifests.
    pub(crate) fn ready(&self) {
        self.told_ready.store(true, Ordering::Release);
        self.send("READY=1");
    }

    /// It reads its configuration again. An agent that starts still does nothing else, as far as anybody is told.
    pub(crate) fn reloading(&self) {
        if !self.told_ready.load(Ordering::Acquire) {
            return;
        }
        // Without the time systemd takes the reload for one that was asked for before (sd_notify(3)).
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// It has read its configuration, and is as ready as it was before: one that starts still is not.
    pub(crate) fn reloaded(&self) {
        if self.told_ready.load(Ordering::Acquire) {
            self.send("READY=1");
        }
    }

    /// What it does, for `systemctl status`.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// It ends.
    pub(crate) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// It is alive.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Its end takes that much longer, counted from now.
    pub(crate) fn needs_longer(&self, time: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::debug!(%error, message, "the service manager was not told");
        }
    }
}

fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_path_and_by_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("coracle-notifier-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (manager, address) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            let notifier = Notifier::new(Some(address));
            assert!(notifier.is_heard());
            notifier.reloading();
            notifier.reloaded();
            notifier.ready();
            notifier.clone().reloaded();
            notifier.stopping("ends");
            notifier.needs_longer(Duration::from_secs(3));
            let heard = || {
                let mut buffer = [0; 64];
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            };
            assert_eq!(heard(), "READY=1", "a reload before is none of its business");
            assert_eq!(heard(), "READY=1");
            assert_eq!(heard(), "STOPPING=1\nSTATUS=ends");
            assert_eq!(heard(), "EXTEND_TIMEOUT_USEC=3000000");
        }
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        Notifier::new(None).ready();
        let absent = Notifier::new(Some("/nonexistent/notify".into()));
        assert!(!absent.is_heard());
        absent.ready();
    }
}
