//! Pulls from registries on this machine's loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth;
mod blobs;
mod debian;
mod faults;
mod hosts;
mod pull;
mod tls;

use std::path::Path;
use std::time::Duration;

use coracle_fetch::Proxies;
use coracle_model::ImageName;
use coracle_registry::{Blob, Client, Credential, Descriptor, Error, Limits, Manifest, Platform, Settings};

/// For whatever must happen.
const SOON: Duration = Duration::from_secs(20);

/// Patience, without long waits between attempts.
const LIMITS: Limits = Limits {
    connect: SOON,
    answer: SOON,
    document: SOON,
    stall: SOON,
    least_rate: 0,
    rate_time: SOON,
    attempts: 3,
    progress: 64 << 10,
    back_off: Duration::from_millis(10),
    longest_back_off: Duration::from_millis(20),
    longest_retry_after: Duration::from_secs(2),
};

const ANYBODY: &Credential = &Credential::Anonymous;

fn client() -> Client {
    with(None, LIMITS)
}

fn with(hosts_dir: Option<&Path>, limits: Limits) -> Client {
    Client::new(Settings {
        hosts_dirs: hosts_dir.into_iter().map(Path::to_owned).collect(),
        proxies: Proxies::from_variables(|_| None).unwrap(),
        user_agent: "coracle/test".to_owned(),
        limits,
        platform: Platform { architecture: "amd64".to_owned(), os: "linux".to_owned(), variant: None },
    })
    .unwrap()
}

/// A client that reaches a registry by whatever name, and what stands between them.
fn through_a_relay(
    registry: &coracle_tests::registry::Registry,
    hosts_dir: &Path,
) -> (Client, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let target = registry.address();
    let relay = tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"CONNECT "));
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut onward = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut onward).await });
        }
    });
    let client = Client::new(Settings {
        hosts_dirs: vec![hosts_dir.to_owned()],
        proxies: Proxies::from_variables(|name| (name == "HTTPS_PROXY").then(|| proxy.clone())).unwrap(),
        user_agent: "coracle/test".to_owned(),
        limits: LIMITS,
        platform: Platform::host(),
    });
    (client.unwrap(), relay)
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

/// All of a blob.
async fn read(mut blob: Blob) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(part) = blob.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// All of an image: its manifest, its configuration, and its layers.
async fn pull(
    client: &Client,
    image: &str,
    credential: &Credential,
) -> Result<(Manifest, Vec<u8>, Vec<Vec<u8>>), Error> {
    let name = name(image);
    let manifest = client.manifest(&name, credential).await?;
    let config = client.document(&name, &manifest.config, credential).await?;
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        layers.push(read(client.blob(&name, layer, credential).await?).await?);
    }
    Ok((manifest, config, layers))
}

fn descriptor(of: &coracle_tests::registry::Descriptor) -> Descriptor {
    Descriptor { media_type: of.media_type.clone(), digest: of.digest.parse().unwrap(), size: of.size as u64 }
}
