//! Pulls from registries on this machine's loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blobs;
mod faults;
mod pull;

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
