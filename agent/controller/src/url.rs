//! Manifests that are served at an address.

mod schedule;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use coracle_fetch::{Answer, Error, Fetcher, Validators};
use coracle_model::ManifestSource;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::{Found, Manifests};
use schedule::Schedule;

/// Decodes what an address has answered with, given by the address's name; the error is a message for users that
/// names line and field.
pub trait DecodeAnswer: Fn(&str, &[u8]) -> Result<Found, String> + Send + Sync + 'static {}

impl<F: Fn(&str, &[u8]) -> Result<Found, String> + Send + Sync + 'static> DecodeAnswer for F {}

/// Asks an address for manifests: `staticPodURL` of the kubelet.
///
/// What it serves is one manifest, as a file is. A server that fails, or answers with what is no manifest, takes
/// nothing from the pods of its last valid answer; neither does one that was not reached yet since the agent has
/// started. Only an answer without a pod ends it, be it a list of nothing. (The kubelet takes an empty body for
/// such an answer as well. Here it is a fault: it is rather a server that is broken than a wish.)
pub struct UrlSource<D> {
    fetcher: Fetcher,
    source: ManifestSource,
    decode: Arc<D>,
    manifests: Arc<Manifests>,
    schedule: Schedule,
    /// What the last answer is known by.
    validators: Validators,
    /// Of the last answer: many a server cannot tell whether there is another.
    digest: Option<[u8; 32]>,
    /// Whether the last answer is a manifest.
    valid: bool,
}

// === impl UrlSource ===

impl<D: DecodeAnswer> UrlSource<D> {
    /// A source for what `fetcher` asks for, as often as `frequency` says, among all that is known.
    pub fn new(fetcher: Fetcher, frequency: Duration, decode: D, manifests: &Arc<Manifests>) -> Self {
        let source = source_of(&fetcher);
        manifests.expect(&source);
        Self {
            fetcher,
            source,
            decode: Arc::new(decode),
            manifests: Arc::clone(manifests),
            schedule: Schedule::new(frequency),
            validators: Validators::default(),
            digest: None,
            valid: false,
        }
    }

    /// Asks, and asks again, until the future is dropped.
    pub async fn run(mut self) -> Infallible {
        loop {
            let answer = self.fetcher.check(&self.validators).await;
            let wait = self.schedule.next(&answer, fastrand::f64());
            self.take_in(answer).await;
            self.manifests.publish();
            sleep(wait).await;
        }
    }

    async fn take_in(&mut self, answer: Result<Answer, Error>) {
        let known = self.manifests.with(|catalog| catalog.holds_something(|source| *source == self.source));
        let problem = match answer {
            Ok(Answer::Unchanged) => None,
            Ok(Answer::Changed { body, validators }) => {
                self.validators = validators;
                self.read(body).await;
                None
            }
            Err(error) => {
                let left_alone = if known { "; the pods from it are left alone" } else { "" };
                Some(format!("{}: {error}{left_alone}", self.source))
            }
        };
        // With nothing known of it, nobody can have had anything from it: what is not there is not waited for.
        if problem.is_none() && self.valid || !known {
            self.manifests.was_read(&self.source);
        }
        self.manifests.with(|catalog| catalog.set_place_problem(&self.source, problem, Timestamp::now()));
    }

    /// Reads an answer, away from the runtime's threads.
    async fn read(&mut self, body: Vec<u8>) {
        let digest: [u8; 32] = Sha256::digest(&body).into();
        if self.digest == Some(digest) {
            return;
        }
        let (decode, source) = (Arc::clone(&self.decode), self.source.clone());
        let decoded = spawn_blocking(move || decode(&source.to_string(), &body)).await;
        let found = decoded.unwrap_or_else(|error| Err(format!("{}: {error}", self.source)));
        self.digest = Some(digest);
        self.valid = found.is_ok();
        self.manifests.with(|catalog| catalog.update_answer(&self.source, found));
    }
}

/// By which name what is asked for is known.
pub fn source_of(fetcher: &Fetcher) -> ManifestSource {
    ManifestSource::Url(Arc::from(fetcher.address().to_string()))
}

/// Decodes an answer as Kubernetes does: see [`coracle_manifest::decode_from`].
pub fn decode_answer(source: &str, body: &[u8]) -> Result<Found, String> {
    let decoded = coracle_manifest::decode_from(coracle_manifest::Origin::Http, source, body)
        .map_err(|error| error.to_string())?;
    if decoded.documents == 0 {
        return Err(format!(
            "{source}: has answered with no object; what it held is left alone (a v1 List without items ends its pods)"
        ));
    }
    Ok(decoded.into())
}
