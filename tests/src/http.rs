//! An HTTP server on a machine under test, which answers as it is told and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use crate::machine::Machine;
use crate::network::listen_in;
use crate::processes::Pid;

/// The first byte of a client that wants TLS (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// How a server answers.
#[derive(Clone, Debug)]
pub enum Serve {
    /// With this body; with 304 whoever knows its tag.
    Body {
        /// The body.
        body: String,
        /// `ETag`, if it has one.
        tag: Option<String>,
    },
    /// With this status line, and no body.
    Status(&'static str),
    /// With the beginning of an answer, and then not at all, until the server ends.
    Hang,
    /// Not at all, until the server ends.
    Silence,
}

/// A request, and when it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Up to the empty line.
    pub head: String,
    /// The status of the answer; empty if there was none.
    pub status: String,
    /// When it was read.
    pub at: Instant,
}

/// A server. Dropping it ends it: whoever connects then is refused.
pub struct Server {
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    serve: Mutex<Serve>,
    asked: Mutex<Vec<Asked>>,
}

// === impl Server ===

impl Server {
    /// Serves on a port of the machine's loopback.
    pub fn start(machine: &Machine, port: u16, serve: Serve) -> Self {
        Self::start_at(machine.init(), SocketAddr::from(([127, 0, 0, 1], port)), serve)
    }

    /// Serves on a port of whatever address there is in the network namespace of a process.
    pub fn start_in(pid: Pid, port: u16, serve: Serve) -> Self {
        Self::start_at(pid, SocketAddr::from(([0, 0, 0, 0], port)), serve)
    }

    fn start_at(pid: Pid, address: SocketAddr, serve: Serve) -> Self {
        let listener = Arc::new(listen_in(pid, address).expect("the port is free"));
        let shared = Arc::new(Shared { serve: Mutex::new(serve), asked: Mutex::default() });
        let (of_thread, accepting) = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = std::thread::spawn(move || of_thread.accept(&accepting));
        Self { listener, shared, thread: Some(thread) }
    }

    /// Answers otherwise from now on.
    pub fn serve(&self, serve: Serve) {
        *lock(&self.shared.serve) = serve;
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the thread's accept(2), whatever has become of the machine.
        let _ = shutdown(&self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        let mut hanging = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            // Who is cut off while it asks or is answered has chosen so.
            if let Ok(Some(stream)) = self.answer(stream) {
                hanging.push(stream);
            }
        }
    }

    /// Answers one request; gives the connection back if it is to be held.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<Option<TcpStream>> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        if stream.peek(&mut byte)? == 1 && byte == [TLS_HANDSHAKE] {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nThis server speaks no TLS.\n")?;
            return Ok(Some(stream));
        }
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let at = Instant::now();
        let head = String::from_utf8_lossy(&head).into_owned();
        let serve = lock(&self.serve).clone();
        let (status, headers, body) = match &serve {
            Serve::Body { tag: Some(tag), .. } if header(&head, "if-none-match") == Some(tag) => {
                ("304 Not Modified", format!("ETag: {tag}\r\n"), "")
            }
            Serve::Body { body, tag } => {
                let tag = tag.as_ref().map_or_else(String::new, |tag| format!("ETag: {tag}\r\n"));
                ("200 OK", format!("{tag}Content-Length: {}\r\n", body.len()), body.as_str())
            }
            Serve::Status(status) => (*status, "Content-Length: 0\r\n".to_owned(), ""),
            Serve::Silence => {
                lock(&self.asked).push(Asked { head, status: String::new(), at });
                return Ok(Some(stream));
            }
            Serve::Hang => ("200 OK", "Content-Length: 1000\r\n".to_owned(), "kind: "),
        };
        lock(&self.asked).push(Asked { head, status: status.to_owned(), at });
        stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}\r\n{body}").as_bytes())?;
        Ok(matches!(serve, Serve::Hang).then_some(stream))
    }
}

/// The value of a request's header.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
