//! Threads for what blocks: on a disk, or on a stream.

use std::io;
use std::thread::Builder;

use tokio::sync::oneshot;

/// Begins work on a thread of its own; a future of its result, `None` if it panics. The work goes on, also when nobody
/// waits for it any more.
pub(crate) fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Ended<T>> {
    let (done, result) = oneshot::channel();
    Builder::new().name(name.to_owned()).spawn(move || {
        // Whoever asked may have gone.
        let _ = done.send(work());
    })?;
    Ok(Ended(result))
}

/// The end of a thread's work.
pub(crate) struct Ended<T>(oneshot::Receiver<T>);

impl<T> Future for Ended<T> {
    type Output = Option<T>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::pin::Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}
