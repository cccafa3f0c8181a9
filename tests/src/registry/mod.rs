//! A registry that answers as a test tells it, and remembers what it was asked.
//!
//! [`Content`] is what a good registry has and how it answers; a script may answer in its place, with bodies that are cut
//! off, never end or trickle ([`Body`]).

mod content;
mod reply;
mod tls;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use content::{Content, Descriptor, Image, gzip, tar_of};
pub use reply::{Body, Reply, json};
pub use tls::{Authority, Certificate};

use rustix::net::{Shutdown, shutdown};

/// The first byte of a client that wants TLS (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Up to the empty line.
    pub head: String,
    /// What was sent with it.
    pub body: Vec<u8>,
    /// Which of all requests it is, from 0 on.
    pub number: usize,
    /// Which connection it came by, from 0 on.
    pub connection: usize,
}

type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A registry, which ends when it is dropped: whoever connects then is refused.
pub struct Registry {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    shared: Arc<Shared>,
    https: bool,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    script: Script,
    asked: Mutex<Vec<Request>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    sent: AtomicU64,
    ended: AtomicBool,
    tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
}

// === impl Registry ===

impl Registry {
    /// Answers by a script, on a port of the loopback, without TLS.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(bind(), None, Box::new(script))
    }

    /// Answers by a script, in TLS.
    pub fn start_tls(
        certificate: &Certificate,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(bind(), Some(certificate.server()), Box::new(script))
    }

    /// Answers by a script whoever connects to a listener, which may be of another network namespace.
    pub fn start_at(
        listener: TcpListener,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(listener, None, Box::new(script))
    }

    /// Has what it is given, without TLS.
    pub fn with(content: Content) -> Self {
        Self::start(move |request| content.answer(request))
    }

    fn serve(
        listener: TcpListener,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
        script: Script,
    ) -> Self {
        let listener = Arc::new(listener);
        let address = listener.local_addr().expect("a listener has an address");
        let https = tls.is_some();
        let shared = Arc::new(Shared {
            script,
            asked: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            tls,
        });
        let (of_thread, accepting) = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = std::thread::spawn(move || of_thread.accept(&accepting));
        Self { listener, address, shared, https, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Host and port, as names of images have them.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Scheme, host and port.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.address)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Request> {
        lock(&self.shared.asked).clone()
    }

    /// The requests so far, each as its method and target.
    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|one| format!("{} {}", one.method, one.target)).collect()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes it could send so far, heads and all, on all connections.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Ends the thread's accept(2).
        let _ = shutdown(&self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Request ===

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        crate::http::header(&self.head, name)
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A value of the query, as it was sent.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it asks for a blob.
    pub fn is_blob(&self) -> bool {
        self.path().contains("/blobs/")
    }

    /// Whether it asks for a manifest.
    pub fn is_manifest(&self) -> bool {
        self.path().contains("/manifests/")
    }
}

// === impl Shared ===

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().map_while(Result::ok) {
            let number = self.connections.fetch_add(1, Ordering::SeqCst);
            let shared = Arc::clone(self);
            // Who is cut off while it asks or is answered has chosen so. The thread ends with the connection.
            std::thread::spawn(move || shared.converse(stream, number));
        }
    }

    fn converse(&self, stream: TcpStream, number: usize) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut first = [0];
        if stream.peek(&mut first)? == 0 {
            return Ok(());
        }
        match (&self.tls, first[0] == TLS_HANDSHAKE) {
            (None, false) => self.answer_all(stream, number),
            (None, true) => {
                let mut stream = stream;
                stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks no TLS.\n")
            }
            (Some(config), _) => {
                let connection = tokio_rustls::rustls::ServerConnection::new(Arc::clone(config));
                let connection = connection.map_err(io::Error::other)?;
                self.answer_all(tokio_rustls::rustls::StreamOwned::new(connection, stream), number)
            }
        }
    }

    fn answer_all(&self, mut stream: impl Read + Write, connection: usize) -> io::Result<()> {
        while let Some((head, body)) = read(&mut stream)? {
            let mut words = head.split(' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (method, target) = (word(), word());
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let request = Request { method, target, head, body, number, connection };
            lock(&self.asked).push(request.clone());
            let reply = (self.script)(&request);
            let mut stream = Counting { stream: &mut stream, sent: &self.sent };
            if !reply.write(&mut stream, request.method == "HEAD", &self.ended)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Counts what is sent.
struct Counting<'a, S> {
    stream: &'a mut S,
    sent: &'a AtomicU64,
}

impl<S: Write> Write for Counting<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.sent.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// One request; `None` when the client has gone.
fn read(stream: &mut impl Read) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = crate::http::header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
