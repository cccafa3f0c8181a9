use std::net::SocketAddr;
use std::time::Duration;

use coracle_model::{Grpc, Handler};
use coracle_probe::Outcome;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::node::{TestNode, ask, ask_for, free_port};
use crate::server::{self, response};

async fn listen() -> (u16, TcpIncoming) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    (listener.local_addr().unwrap().port(), TcpIncoming::from(listener))
}

/// A server of the health checking protocol.
async fn serve() -> (u16, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let (port, incoming) = listen().await;
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    (port, reporter)
}

async fn check(port: u16, service: &str) -> Outcome {
    ask(&TestNode::new(), Handler::Grpc(Grpc { port, service: service.to_owned() })).await
}

fn failure(message: impl Into<String>) -> Outcome {
    Outcome::Failure(message.into())
}

#[tokio::test]
async fn the_health_of_the_server_and_of_its_services() {
    let (port, reporter) = serve().await;
    let long = "x".repeat(300);
    for (service, status, expected) in [
        ("", ServingStatus::Serving, Outcome::Success),
        ("shop.Cart", ServingStatus::Serving, Outcome::Success),
        (
            "shop.Cart",
            ServingStatus::NotServing,
            failure("service unhealthy (responded with \"NOT_SERVING\")"),
        ),
        ("shop.Cart", ServingStatus::Unknown, failure("service unhealthy (responded with \"UNKNOWN\")")),
        (&long, ServingStatus::Serving, Outcome::Success),
    ] {
        reporter.set_service_status(service, status).await;
        assert_eq!(check(port, service).await, expected, "{service} {status}");
    }
    assert_eq!(
        check(port, "shop.Other").await,
        failure("error: health rpc probe failed: rpc error: code = NotFound desc = service not registered")
    );
}

#[tokio::test]
async fn a_server_without_the_protocol() {
    let (port, incoming) = listen().await;
    let nothing = tonic::service::Routes::default();
    tokio::spawn(Server::builder().add_routes(nothing).serve_with_incoming(incoming));
    let expected = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ";
    assert_eq!(check(port, "").await, failure(expected));
}

#[tokio::test]
async fn nobody_there() {
    let port = free_port().await;
    assert_eq!(
        check(port, "").await,
        failure(format!(
            "error: failed to connect service at \"127.0.0.1:{port}\": dial tcp 127.0.0.1:{port}: connect: \
             connection refused"
        ))
    );
}

#[tokio::test]
async fn a_server_of_something_else() {
    let server = server::Server::start(|_| response("400 Bad Request", "", "")).await;
    let Outcome::Failure(message) = check(server.port, "").await else { panic!("an HTTP/1.1 server passed") };
    let start = "error: health rpc probe failed: rpc error: code = Unavailable desc = ";
    assert!(message.starts_with(start), "{message}");
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = Handler::Grpc(Grpc { port, service: String::new() });
    let outcome = ask_for(&TestNode::new(), handler, Duration::from_millis(200)).await;
    assert_eq!(outcome, failure("timeout: health rpc did not complete within 200ms"));
}
