//! A server's side of a unix socket.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::ServeError;
use crate::lenient::Lenient;

/// How many clients are served at a time; further ones wait.
const MOST_CONNECTIONS: usize = 128;
/// How many calls of a client are.
const MOST_CALLS: u32 = 128;
/// How long a client may be connected before it calls something.
const FIRST_CALL: Duration = Duration::from_secs(5);
/// How long is waited when a connection could not be accepted, as when there is no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// A socket that is listened on. It stays when this is dropped, so that whoever has taken its place keeps it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection, counted as long as it lasts.
struct Counted {
    connection: Lenient,
    _permit: Option<OwnedSemaphorePermit>,
}

// === impl Listener ===

impl Listener {
    /// Listens at `path`, for root alone. The directory is made if it is not there; a socket that is there is replaced.
    ///
    /// # Errors
    /// Something that is no socket is there, or the system refuses.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, ServeError> {
        let path = path.into();
        let directory = |error| ServeError::Directory { path: path.clone(), error };
        let bind = |error| ServeError::Bind { path: path.clone(), error };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(directory)?;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path).map_err(bind)?,
            Ok(_) => return Err(ServeError::Occupied { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(bind(error)),
        }
        let listener = UnixListener::bind(&path).map_err(bind)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(bind)?;
        Ok(Self { listener, path })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections, as they come and are allowed for.
    fn connections(self) -> impl Stream<Item = io::Result<Counted>> {
        let most = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        stream::unfold((self, most), |(this, most)| async move {
            // The semaphore is never closed.
            let permit = Arc::clone(&most).acquire_owned().await.ok();
            loop {
                match this.listener.accept().await {
                    Ok((stream, _)) => {
                        let connection =
                            Counted { connection: Lenient::new(stream, FIRST_CALL), _permit: permit };
                        return Some((Ok(connection), (this, most)));
                    }
                    Err(error) => {
                        tracing::warn!(socket = %this.path.display(), %error, "a connection could not be accepted");
                        time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        })
    }
}

/// Serves `services` until `end`, then lets calls that are under way come to their end; streams as well, which must
/// end by themselves, or with this future, when it is dropped.
///
/// # Errors
/// Serving failed.
pub async fn serve(
    listener: Listener,
    services: Routes,
    end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let path = listener.path.clone();
    Server::builder()
        .max_concurrent_streams(MOST_CALLS)
        .add_routes(services)
        .serve_with_incoming_shutdown(listener.connections(), end)
        .await
        .map_err(|error| ServeError::Serve { path, error })
}

// === impl Counted ===

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

impl Connected for Counted {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.connection.connect_info()
    }
}
