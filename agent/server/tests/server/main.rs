//! The API over a real socket, in front of real processes and files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attach;
mod configs;
mod configuration;
mod ephemeral;
mod events;
mod exec;
mod logs;
mod node;
mod nodes;
mod pods;
mod port_forward;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use coracle_server::client::{Client, ClientError};
use coracle_server::{Socket, Status};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use node::TestNode;

const DEADLINE: Duration = Duration::from_secs(30);

/// A served node and a client of it.
struct Served {
    directory: tempfile::TempDir,
    node: Arc<TestNode>,
    client: Client,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Arc::new(TestNode::new(directory.path().join("logs")));
        let socket = Socket::bind(&directory.path().join("run/coracle.sock")).unwrap();
        let client = Client::new(socket.path());
        tokio::spawn(coracle_server::serve(socket, node.clone(), pending()));
        Self { directory, node, client }
    }

    /// Asks as any HTTP client would; the whole answer, head and body.
    async fn get(&self, path: &str) -> String {
        let mut socket = UnixStream::connect(self.client.socket()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(socket.read_to_string(&mut answer)).await.unwrap();
        answer
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened for 30 seconds")
}

/// The status a request was refused with.
fn refusal<T>(result: Result<T, ClientError>) -> Status {
    match result {
        Err(ClientError::Status(status)) => *status,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn nobody_at_the_socket_is_said_with_what_to_do() {
    let served = Served::new();
    let client = Client::new(served.directory.path().join("other.sock"));
    let error = client.pods().await.unwrap_err().to_string();
    assert!(error.starts_with("cannot reach the agent at /"), "{error}");
    assert!(error.contains("other.sock") && error.contains("is it running?"), "{error}");
}
