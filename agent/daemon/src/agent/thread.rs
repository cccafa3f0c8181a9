//! Work that may block for as long as it likes.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

/// What the work needs; most of the default is never touched, and there may be many at once.
const STACK: usize = 1 << 20;

/// How many such threads there are, and what tells of one that ends.
static AT_WORK: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// One of them.
struct AtWork;

/// Does it on a thread of its own, so that work that hangs keeps no other from being done. It is done to its end, also
/// when nobody waits for it any more.
pub(super) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let at_work = AtWork::new();
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        let _at_work = at_work;
        // Whoever asked may have given up.
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| io::Error::other("it panicked"))
}

/// Waits until all such work is done; whether it is. Blocks.
pub(super) fn all_done(limit: Duration) -> bool {
    let (left, _) = ENDED
        .wait_timeout_while(count(), limit, |at_work| *at_work > 0)
        .unwrap_or_else(PoisonError::into_inner);
    *left == 0
}

fn count() -> MutexGuard<'static, usize> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl AtWork ===

impl AtWork {
    fn new() -> Self {
        *count() += 1;
        Self
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        *count() -= 1;
        ENDED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_waited_for_in_the_end() {
        let (open, gate) = channel::<()>();
        let work = on_own_thread("test", move || gate.recv());
        assert!(tokio::time::timeout(Duration::from_millis(10), work).await.is_err(), "it was given up");
        assert!(!all_done(Duration::from_millis(10)));
        open.send(()).unwrap();
        assert!(all_done(Duration::from_secs(30)));
    }
}
