//! Callers of every kind are served, whatever they send for `:authority`.

#![allow(clippy::unwrap_used, reason = "what fails here has failed the test")]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_device_api::deviceplugin::registration_client::RegistrationClient;
use coracle_device_api::deviceplugin::registration_server::{Registration, RegistrationServer};
use coracle_device_api::deviceplugin::{Empty, RegisterRequest};
use coracle_device_api::tonic::service::Routes;
use coracle_device_api::tonic::{Code, Request, Response, Status};
use coracle_device_api::{ConnectError, Listener, ServeError, call, connect, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);
/// How many clients are served at a time.
const MOST_CONNECTIONS: usize = 128;

/// Counts those who register, and answers one of no version never.
#[derive(Default)]
struct Node {
    registered: AtomicUsize,
}

#[coracle_device_api::tonic::async_trait]
impl Registration for Shared {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        match request.version.as_str() {
            "v1beta1" => {
                self.0.registered.fetch_add(1, Ordering::Relaxed);
                Ok(Response::new(Empty {}))
            }
            "" => std::future::pending().await,
            other => Err(Status::invalid_argument(format!("version {other} is not v1beta1"))),
        }
    }
}

struct Shared(Arc<Node>);

/// A node that is served for as long as the test lasts.
fn node(directory: &tempfile::TempDir) -> (Arc<Node>, std::path::PathBuf) {
    let path = directory.path().join("plugins/kubelet.sock");
    let node = Arc::new(Node::default());
    let services = Routes::new(RegistrationServer::new(Shared(node.clone())));
    let listener = Listener::bind(&path).unwrap();
    tokio::spawn(serve(listener, services, std::future::pending()));
    (node, path)
}

fn register(version: &str) -> RegisterRequest {
    RegisterRequest {
        version: version.to_owned(),
        endpoint: "x.sock".to_owned(),
        resource_name: "example.com/x".to_owned(),
        options: None,
    }
}

#[tokio::test]
async fn our_own_client_is_served_and_waits_no_longer_than_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let (node, path) = node(&directory);
    let mut client = RegistrationClient::new(connect(&path, LONG).await.unwrap());
    for _ in 0..3 {
        call(LONG, register("v1beta1"), |request| client.register(request)).await.unwrap();
    }
    assert_eq!(node.registered.load(Ordering::Relaxed), 3);
    let refused = call(LONG, register("v1"), |request| client.register(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "version v1 is not v1beta1");
    let short = Duration::from_millis(50);
    let late = call(short, register(""), |request| client.register(request)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
}

#[tokio::test]
async fn who_does_not_answer_is_told_apart_from_who_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nobody.sock");
    let refused = connect(&missing, LONG).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("nobody.sock"), "{refused}");
    assert!(refused.to_string().contains("No such file or directory"), "{refused}");
}

#[tokio::test]
async fn a_socket_is_replaced_and_a_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubelet.sock");
    drop(Listener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Listener::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    let refused = Listener::bind(&path).unwrap_err();
    assert!(matches!(refused, ServeError::Occupied { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[tokio::test]
async fn what_is_no_http_ends_its_connection_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (node, path) = node(&directory);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    // A frame of settings, then headers that refer to an entry there is not.
    let broken = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\xbe".as_slice();
    for bytes in
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9), [preface, broken].concat(), vec![0xff; 10_000]]
    {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // It may be closed before all of it is written.
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let ended = timeout(LONG, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is still open");
    }
    let mut client = RegistrationClient::new(connect(&path, LONG).await.unwrap());
    call(LONG, register("v1beta1"), |request| client.register(request)).await.unwrap();
    assert_eq!(node.registered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn clients_that_connect_and_call_nothing_take_nobody_s_place_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let (node, path) = node(&directory);
    let mut clients = Vec::new();
    for at in 0..MOST_CONNECTIONS {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // Some begin, and go no further.
        if at % 2 == 0 {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        }
        clients.push(stream);
    }
    // One that has called something may stay for as long as it likes.
    clients.pop();
    let mut calls = RegistrationClient::new(connect(&path, LONG).await.unwrap());
    call(LONG, register("v1beta1"), |request| calls.register(request)).await.unwrap();
    let mut client = RegistrationClient::new(connect(&path, LONG).await.unwrap());
    call(LONG, register("v1beta1"), |request| client.register(request)).await.unwrap();
    for mut stream in clients {
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    }
    call(LONG, register("v1beta1"), |request| calls.register(request)).await.unwrap();
    assert_eq!(node.registered.load(Ordering::Relaxed), 3);
}

/// Python's grpcio is gRPC's core in C, which tests/callers.py has say for an authority what clients are known to.
#[tokio::test]
async fn callers_with_any_authority_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let (node, path) = node(&directory);
    let encoded = path.display().to_string().replace('/', "%2F");
    let target = format!("unix://{}", path.display());
    let authorities = [
        "localhost",
        path.to_str().unwrap(),
        &encoded,
        &target,
        ":",
        "a b",
        "host:port:x",
        "[",
        "@",
        "\u{e9}",
    ];
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/callers.py");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script).arg(&path).args(authorities).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(2 * LONG, python.output()).await.expect("the caller ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(node.registered.load(Ordering::Relaxed), 2 + 2 * authorities.len(), "{said}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
