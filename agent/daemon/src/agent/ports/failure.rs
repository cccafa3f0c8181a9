//! Errors of the parts, as the failures that users are shown.

use std::fmt::Display;

use coracle_pod::ports::Failure;

/// Makes a failure with Kubernetes' reason out of any error.
pub(super) fn failure<E: Display>(reason: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(reason, error.to_string())
}

/// Runs blocking work of a port.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new("InternalError", error.to_string())),
    }
}
