//! Work that blocks, off the threads that must not.

use crate::error::{Error, system};

/// Runs `work` on a thread of its own kind and waits for it. Dropping the future does not stop it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(system("run blocking work")(std::io::Error::other(error))),
    }
}
