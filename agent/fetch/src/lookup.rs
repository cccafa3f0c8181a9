//! The addresses of hosts.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::sync::oneshot;

/// The most names that are looked up at once, those that nobody waits for any more among them: a resolver that
/// does not answer is asked for longer than a probe or a pull waits.
const MOST: usize = 128;

/// Looks a name up as the node does, which may block: on a thread of its own, so that names that hang keep no
/// other work of the agent, nor each other, from being done. An address is its own.
///
/// # Errors
/// The resolver's, or that it is asked for too much already.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let running = Running::one_of(&RUNNING)?;
    let (sender, receiver) = oneshot::channel();
    let host: Arc<str> = host.into();
    thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        let found = (&*host, port).to_socket_addrs().map(Iterator::collect);
        drop(running);
        // Whoever asked may have given up.
        let _ = sender.send(found);
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")))
}

/// One that is counted.
struct Running(&'static AtomicUsize);

// === impl Running ===

impl Running {
    fn one_of(count: &'static AtomicUsize) -> io::Result<Self> {
        let one = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= MOST {
            return Err(io::Error::other(
                "too many names are being looked up; the node's resolver may not answer",
            ));
        }
        Ok(one)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
