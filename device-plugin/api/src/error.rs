//! What can fail on a socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its directory cannot be made.
    #[error("the directory of socket {path} cannot be made: {error}")]
    Directory {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What is in its place is no socket, and stays.
    #[error("{path} is there and is no socket: remove it, or have another path used")]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be listened on.
    #[error("socket {path} cannot be listened on: {error}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Serving ended.
    #[error("socket {path} is not served any more: {error}")]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: tonic::transport::Error,
    },
}

/// A socket cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, or what listens does not speak HTTP/2.
    #[error("nobody answers on socket {path}: {reason}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why, with all causes.
        reason: String,
    },
    /// It took too long.
    #[error("socket {path} did not answer within {within:?}")]
    Late {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        within: Duration,
    },
}
