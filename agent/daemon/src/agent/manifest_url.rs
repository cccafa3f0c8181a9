//! Manifests from an address, whichever is configured.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coracle_controller::{Manifests, UrlSource, decode_answer, source_of};
use coracle_fetch::{Fetcher, Limits, Proxies};
use coracle_model::ManifestSource;
use coracle_sandbox::Runtime;
use tokio::sync::watch;

use crate::config::{Config, ManifestUrl};

/// What an answer with manifests may cost: the kubelet's time, and as much as a manifest may have.
const ANSWER: Limits = Limits { time: Duration::from_secs(10), bytes: coracle_controller::MAX_BYTES };

/// What asks for the manifests that are served at an address.
pub(super) fn fetcher(url: &ManifestUrl) -> anyhow::Result<Fetcher> {
    let address = &url.address;
    let proxies =
        Proxies::from_environment().with_context(|| format!("cannot ask {address} for manifests"))?;
    let user_agent = concat!("coracle/", env!("CARGO_PKG_VERSION"));
    Ok(Fetcher::new(address.clone(), url.headers.clone(), proxies, user_agent, ANSWER)?)
}

/// Says so where anybody could choose what the node runs.
fn warn_of_plain(url: &ManifestUrl) {
    let address = &url.address;
    if !address.is_https() && !address.is_loopback() {
        tracing::warn!(
            "manifests come from {address} without encryption: whoever is on the way can choose what this node runs, \
             and read what is sent there; https prevents it"
        );
    }
}

/// Asks the address there is, as long as it is that one.
pub(super) async fn follow(
    mut config: watch::Receiver<Arc<Config>>,
    manifests: Arc<Manifests>,
    runtime: Runtime,
) -> Infallible {
    let mut url = config.borrow_and_update().manifest_url.clone();
    let mut asked: Option<ManifestSource> = None;
    loop {
        url.as_ref().map(warn_of_plain);
        let fetcher = url.as_ref().map(fetcher).transpose().unwrap_or_else(|error| {
            // Found to be usable when it was configured.
            tracing::error!(%error, "the manifests that are served are no longer asked for");
            None
        });
        let source = fetcher.as_ref().map(source_of);
        if let Some(before) = asked.filter(|before| source.as_ref() != Some(before)) {
            manifests.readdress(&before, source.as_ref());
        }
        asked = source;
        let frequency = url.as_ref().map(|url| url.frequency);
        let mut asking = pin!(ask(fetcher.zip(frequency), &manifests, &runtime));
        let other = loop {
            tokio::select! {
                never = &mut asking => match never {},
                changed = config.changed() => if changed.is_err() {
                    // The agent ends.
                    return pending().await;
                },
            }
            let now = config.borrow_and_update().manifest_url.clone();
            if now != url {
                break now;
            }
        };
        url = other;
    }
}

async fn ask(of: Option<(Fetcher, Duration)>, manifests: &Arc<Manifests>, runtime: &Runtime) -> Infallible {
    let Some((fetcher, frequency)) = of else { return pending().await };
    let runtime = runtime.clone();
    let decode = move |source: &str, body: &[u8]| {
        runtime.expect_start();
        decode_answer(source, body)
    };
    UrlSource::new(fetcher, frequency, decode, manifests).run().await
}
