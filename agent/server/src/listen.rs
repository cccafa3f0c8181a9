//! The socket: who may find it, and who may speak on it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// The longest path `sockaddr_un` takes, without its closing NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Why the API cannot be served at a path.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The directory cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could replace the socket, or reach it.
    #[error("the directory {} is open to other users (mode {mode:04o}): chmod 0700 it, or choose another --run-dir", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another agent answers there.
    #[error("another agent serves {}: stop it, or choose another --run-dir", .0.display())]
    InUse(PathBuf),
    /// The kernel takes no longer paths.
    #[error("{} is too long for a unix socket ({MAX_SOCKET_PATH} bytes at most): choose a shorter --run-dir", .0.display())]
    TooLong(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket that speaks with root and with the user the agent runs as, and nobody else.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
}

// === impl Socket ===

impl Socket {
    /// Listens at `path`: its directory is made if missing, mode 0700; the socket has mode 0600. A socket
    /// that nobody serves any more is replaced.
    ///
    /// # Errors
    ///
    /// [`ListenError::InUse`] when another agent answers at `path`.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        // Bound under another name and renamed, so that nobody ever meets it half-made, and so that the
        // name of a dead agent's socket is taken over in one step.
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        if temporary.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ListenError::TooLong(path.to_owned()));
        }
        private_directory(path.parent().unwrap_or(Path::new("/")))?;
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse(path.to_owned()));
        }
        let bind = || {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&temporary)?;
            fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
            fs::rename(&temporary, path)?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| ListenError::Bind { path: path.to_owned(), source })?;
        let own_uid = rustix::process::geteuid().as_raw();
        Ok(Self { listener, path: path.to_owned(), own_uid })
    }

    /// One that listens already: the service manager holds it, and it stays when this is dropped. It has to be at
    /// `path`, whose directory nobody else may reach.
    ///
    /// # Errors
    ///
    /// [`ListenError::Open`], [`ListenError::Bind`]. Needs a tokio runtime.
    pub fn handed_over(listener: std::os::unix::net::UnixListener, path: &Path) -> Result<Self, ListenError> {
        private_directory(path.parent().unwrap_or(Path::new("/")))?;
        let listener = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let listener = listener.map_err(|source| ListenError::Bind { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), own_uid: rustix::process::geteuid().as_raw() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory that nobody else may look into, if it is missing. One that is there is not changed: it may be
/// somebody else's.
///
/// # Errors
///
/// [`ListenError::Directory`], [`ListenError::Open`].
pub fn private_directory(path: &Path) -> Result<(), ListenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| fs::metadata(path));
    let found = made.map_err(|source| ListenError::Directory { path: path.to_owned(), source })?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(ListenError::Open { path: path.to_owned(), mode }) }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            // Listener's own accept waits a second where a limit on descriptors is hit.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            // The mode of the socket says the same; a mode can be changed by hand, credentials cannot.
            match stream.peer_cred() {
                Ok(peer) if may_speak(peer.uid(), self.own_uid) => return (stream, address),
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), pid = ?peer.pid(), "refused a client that is not root")
                }
                Err(error) => tracing::warn!(%error, "refused a client without credentials"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn may_speak(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/coracle.sock");
        let first = Socket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(matches!(Socket::bind(&path), Err(ListenError::InUse(_))));
        drop(first);
        assert!(path.exists(), "the name of a dead socket stays");
        Socket::bind(&path).unwrap();
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing temporary is left");
    }

    #[test]
    fn a_path_the_kernel_would_cut_is_refused() {
        let parent = std::env::temp_dir().join("x".repeat(100));
        let error = Socket::bind(&parent.join("coracle.sock")).unwrap_err();
        assert!(!parent.exists(), "nothing is made for a socket that cannot be");
        assert!(matches!(error, ListenError::TooLong(_)), "{error}");
    }

    #[test]
    fn a_directory_open_to_others_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = Socket::bind(&directory.path().join("coracle.sock")).unwrap_err();
        assert!(error.to_string().contains("(mode 1777): chmod 0700"), "{error}");
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o7777, 0o1777);
    }

    #[test]
    fn root_and_the_agents_user_may_speak() {
        assert!(may_speak(0, 1000) && may_speak(1000, 1000) && may_speak(0, 0));
        assert!(!may_speak(1001, 1000) && !may_speak(1000, 0));
    }
}
