//! Connections that wait for another request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderValue;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::Address;
use crate::tls::Tls;

/// How long a connection waits. A pull makes its requests one after the other; what is longer than that is another pull.
const IDLE: Duration = Duration::from_secs(10);

/// How long a connection whose answer has ended may take to be ready again: its task has but to notice.
const READY: Duration = Duration::from_millis(100);

/// How many connections to one host wait; more than that are in use only where more layers are downloaded at a time.
const MOST_IDLE: usize = 8;

/// Whom a connection is to, and by what trust. An address of plain HTTP by a proxy is no other than by none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    origin: String,
    /// Of the TLS: what one trusts another may not.
    tls: u64,
}

/// A connection that serves one request at a time.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    pub(crate) by_proxy: Option<Option<HeaderValue>>,
    /// Reads the connection.
    pub(crate) _driven: AbortOnDropHandle<()>,
}

#[derive(Default)]
pub(crate) struct Pool {
    idle: Arc<Mutex<Idle>>,
}

/// Connections by whom they are to, the one that was used last at the end, each under a number of its own.
#[derive(Default)]
struct Idle {
    connections: HashMap<Key, Vec<(u64, Connection)>>,
    next: u64,
}

// === impl Key ===

impl Key {
    pub(crate) fn of(address: &Address, tls: &Tls) -> Self {
        Self { origin: address.origin(), tls: if address.is_https() { tls.id() } else { 0 } }
    }
}

// === impl Pool ===

impl Pool {
    /// A connection that was not seen to end.
    pub(crate) fn take(&self, key: &Key) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let connections = idle.connections.get_mut(key)?;
        let mut found = None;
        while let Some((_, connection)) = connections.pop() {
            if connection.sender.is_ready() {
                found = Some(connection);
                break;
            }
        }
        if connections.is_empty() {
            idle.connections.remove(key);
        }
        found
    }

    /// Keeps a connection for some seconds, if it can be used again.
    pub(crate) async fn put(&self, key: Key, mut connection: Connection) {
        if !matches!(timeout(READY, connection.sender.ready()).await, Ok(Ok(()))) {
            return;
        }
        let number = {
            let mut idle = lock(&self.idle);
            let number = idle.next;
            idle.next += 1;
            let connections = idle.connections.entry(key.clone()).or_default();
            if connections.len() == MOST_IDLE {
                connections.remove(0);
            }
            connections.push((number, connection));
            number
        };
        let idle = Arc::downgrade(&self.idle);
        tokio::spawn(async move {
            sleep(IDLE).await;
            if let Some(idle) = idle.upgrade() {
                lock(&idle).end(&key, number);
            }
        });
    }
}

// === impl Idle ===

impl Idle {
    /// Ends a connection if it still waits since it was given that number.
    fn end(&mut self, key: &Key, number: u64) {
        let Some(connections) = self.connections.get_mut(key) else { return };
        connections.retain(|(one, _)| *one != number);
        if connections.is_empty() {
            self.connections.remove(key);
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
