use std::time::Duration;

use coracle_model::{Handler, PortRef, TcpSocket};
use coracle_probe::Outcome;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::node::{TestNode, ask, ask_for, free_port};

fn tcp(host: Option<&str>, port: u16) -> Handler {
    Handler::TcpSocket(TcpSocket { host: host.map(str::to_owned), port: PortRef::Number(port) })
}

#[tokio::test]
async fn a_connection_that_opens_is_a_success_and_is_closed_in_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(ask(&TestNode::new(), tcp(None, port)).await, Outcome::Success);
    let (mut accepted, _) = listener.accept().await.unwrap();
    assert_eq!(accepted.read(&mut [0; 1]).await.unwrap(), 0, "an end, and no reset");
}

#[tokio::test]
async fn a_closed_port_is_a_failure() {
    let port = free_port().await;
    let expected = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(ask(&TestNode::new(), tcp(None, port)).await, Outcome::Failure(expected));
    let expected = format!("dial tcp [::1]:{port}: connect: connection refused");
    assert_eq!(ask(&TestNode::new(), tcp(Some("::1"), port)).await, Outcome::Failure(expected));
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_a_failure() {
    // Nobody accepts, and the backlog is full: the kernel answers no further connection.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
    }
    let outcome = ask_for(&TestNode::new(), tcp(None, address.port()), Duration::from_millis(100)).await;
    assert_eq!(outcome, Outcome::Failure(format!("dial tcp {address}: i/o timeout")));
}
