//! Work that may block for as long as it likes.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// What the work needs; most of the default is never touched, and there may be many at once.
const STACK: usize = 1 << 20;

/// Does it on a thread of its own, so that work that hangs keeps no other from being done. It is done to its end, also
/// when nobody waits for it any more.
pub(super) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        // Whoever asked may have given up.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("it panicked"))
}
