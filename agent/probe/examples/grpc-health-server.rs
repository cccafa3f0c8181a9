//! A server of gRPC's health checking protocol, for tests of whole nodes to run in a pod.
//!
//! usage: grpc-health-server PORT SERVICE
//!
//! The server and SERVICE serve, until SIGUSR1 says that SERVICE does not; SIGUSR2 says that it does again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it has nobody to tell")]

use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic_health::ServingStatus;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: grpc-health-server PORT SERVICE");
    let (port, service) = (next().parse::<u16>().expect("a port"), next());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(&service, ServingStatus::Serving).await;
    let (mut bad, mut good) =
        (signal(SignalKind::user_defined1()).unwrap(), signal(SignalKind::user_defined2()).unwrap());
    tokio::spawn(async move {
        loop {
            let status = tokio::select! {
                _ = bad.recv() => ServingStatus::NotServing,
                _ = good.recv() => ServingStatus::Serving,
            };
            reporter.set_service_status(&service, status).await;
        }
    });
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let ended = async move {
        terminate.recv().await;
    };
    let address = ([0, 0, 0, 0], port).into();
    Server::builder().add_service(health).serve_with_shutdown(address, ended).await.unwrap();
}
