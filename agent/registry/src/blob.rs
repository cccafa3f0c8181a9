//! Blobs, as streams that survive a broken connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_fetch::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use crate::ask::Request;
use crate::client::Inner;
use crate::credential::Credential;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::rounds::Rounds;

/// A blob on its way. It is not hashed: whoever uses it must do that.
pub struct Blob {
    client: Arc<Inner>,
    rounds: Rounds,
    repository: String,
    descriptor: Descriptor,
    credential: Credential,
    /// The connection it comes by, while there is one.
    source: Option<Source>,
    /// How many bytes were handed out.
    given: u64,
    /// How many that was when an attempt last counted as one that has brought something.
    counted: u64,
}

/// One answer that brings a blob, or what is left of it.
struct Source {
    response: Response,
    /// How much of it is to be left away: what was handed out before.
    skip: u64,
    rate: Rate,
}

/// How fast bytes come, while they are waited for.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    bytes: u64,
}

// === impl Blob ===

impl Blob {
    /// Asks for a blob; it has a source then.
    pub(crate) async fn open(
        client: Arc<Inner>,
        rounds: Rounds,
        repository: String,
        descriptor: Descriptor,
        credential: Credential,
    ) -> Result<Self, Error> {
        let mut blob =
            Self { client, rounds, repository, descriptor, credential, source: None, given: 0, counted: 0 };
        blob.connect().await?;
        Ok(blob)
    }

    /// What it is, by its descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// What comes next; `None` when there were as many bytes as the descriptor says. Where a connection breaks, goes on
    /// with another. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// What each host has said, when no attempt brings more; or that there is more than the descriptor says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.source.is_none() && self.given == self.descriptor.size && self.given > 0 {
                // Broken after the last byte: who is asked for more could but say that there is none.
                return Ok(None);
            }
            self.connect().await?;
            let Some(source) = &mut self.source else { continue };
            let limits = self.client.limits();
            match source.next(limits.stall, limits.least_rate, limits.rate_time).await {
                Ok(Some(bytes)) => {
                    let bytes = source.unseen(bytes);
                    let left = self.descriptor.size - self.given;
                    if bytes.len() as u64 > left {
                        return Err(self.fatal(Error::Endless(self.descriptor.size)));
                    }
                    if !bytes.is_empty() {
                        self.given += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) if self.given == self.descriptor.size => return Ok(None),
                Ok(None) => {
                    let (expected, actual) = (self.descriptor.size, self.given);
                    self.broken(Error::Truncated { expected, actual });
                }
                Err(error) => self.broken(error),
            }
        }
    }

    /// Ends the connection; notes what came of it.
    fn broken(&mut self, error: Error) {
        self.source = None;
        self.rounds.failed(error);
        if self.given - self.counted >= self.client.limits().progress {
            self.counted = self.given;
            self.rounds.progressed();
        }
    }

    /// As [`Blob::broken`], where nothing would be won by going on: the digest would be another in any case.
    fn fatal(&mut self, error: Error) -> Error {
        self.source = None;
        self.rounds.failed(error);
        self.rounds.give_up()
    }

    /// Sees to it that there is a source.
    async fn connect(&mut self) -> Result<(), Error> {
        while self.source.is_none() {
            let host = self.rounds.next().await?;
            let mut headers = HeaderMap::new();
            if self.given > 0 {
                let range = HeaderValue::from_str(&format!("bytes={}-", self.given));
                headers.extend(range.map(|range| (RANGE, range)));
            }
            let path = format!("blobs/{}", self.descriptor.digest);
            let (repository, credential) = (self.repository.as_str(), &self.credential);
            let request = Request { method: Method::GET, repository, path: &path, headers, credential };
            let opened = self.client.asker().ask(&host, &request).await;
            match opened.and_then(|response| Source::of(response, self.given, &self.descriptor)) {
                Ok(source) => {
                    self.client.senders().sends(self.descriptor.digest, host.authority());
                    self.source = Some(source);
                }
                Err(error) => self.rounds.failed(error),
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { descriptor, given, .. } = self;
        f.debug_struct("Blob").field("descriptor", descriptor).field("given", given).finish_non_exhaustive()
    }
}

// === impl Source ===

impl Source {
    /// Takes an answer to the request for what comes after so many bytes.
    fn of(response: Response, given: u64, descriptor: &Descriptor) -> Result<Self, Error> {
        let Descriptor { size, .. } = *descriptor;
        let skip = match response.status {
            // All of it, whatever was asked for.
            StatusCode::OK => given,
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers
                    .get(CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                match first_of(range, size) {
                    Some(first) if first <= given => given - first,
                    _ => return Err(Error::Range { from: given, range: crate::answer::shown(range) }),
                }
            }
            // There is nothing after what was seen; so there are fewer bytes than the manifest says.
            _ => return Err(Error::Truncated { expected: size, actual: given }),
        };
        if let Some(length) = response.length()
            && given - skip + length != size
        {
            let encoding = response.headers.get(CONTENT_ENCODING).filter(|value| *value != "identity");
            if let Some(encoding) = encoding {
                let encoding = String::from_utf8_lossy(encoding.as_bytes());
                return Err(coracle_fetch::Error::Encoding(crate::answer::shown(&encoding)).into());
            }
            return Err(Error::Size { expected: size, actual: given - skip + length });
        }
        Ok(Self { response, skip, rate: Rate::default() })
    }

    /// What comes next, in time and not too slowly.
    async fn next(&mut self, stall: Duration, least: u64, time: Duration) -> Result<Option<Bytes>, Error> {
        let began = Instant::now();
        let bytes = timeout(stall, self.response.next()).await.map_err(|_| Error::Stalled(stall))??;
        let count = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self.rate.is_enough(began.elapsed(), count, least, time) {
            Ok(()) => Ok(bytes),
            Err((bytes, time)) => Err(Error::Trickle { bytes, time, least }),
        }
    }

    /// Of some bytes, those that were not seen before.
    fn unseen(&mut self, mut bytes: Bytes) -> Bytes {
        let seen = self.skip.min(bytes.len() as u64);
        self.skip -= seen;
        // No more than there are, so it is a length.
        bytes.split_off(usize::try_from(seen).unwrap_or(bytes.len()))
    }
}

// === impl Rate ===

impl Rate {
    /// Takes account of bytes that were waited for; whether there were enough in the last `time` of waiting.
    fn is_enough(
        &mut self,
        waited: Duration,
        bytes: u64,
        least: u64,
        time: Duration,
    ) -> Result<(), (u64, Duration)> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < time {
            return Ok(());
        }
        let Self { waited, bytes } = std::mem::take(self);
        let enough = (bytes as f64) >= least as f64 * waited.as_secs_f64();
        if enough { Ok(()) } else { Err((bytes, waited)) }
    }
}

/// The first byte of a `Content-Range` that goes to the end of so many (RFC 9110, section 14.4).
fn first_of(range: &str, size: u64) -> Option<u64> {
    let (range, all) = range.strip_prefix("bytes ")?.split_once('/')?;
    if all != "*" && all.parse() != Ok(size) {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    (last.parse::<u64>().ok()?.checked_add(1)? == size).then(|| first.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_go_on() {
        for (range, expected) in [
            ("bytes 3-9/10", Some(3)),
            ("bytes 0-9/10", Some(0)),
            ("bytes 3-9/*", Some(3)),
            ("bytes 3-8/10", None),
            ("bytes 3-9/11", None),
            ("bytes */10", None),
            ("items 3-9/10", None),
            ("bytes 3-18446744073709551615/*", None),
            ("", None),
        ] {
            assert_eq!(first_of(range, 10), expected, "{range}");
        }
    }

    #[test]
    fn slowness_counts_only_while_it_is_waited_for() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::default();
        for _ in 0..9 {
            assert_eq!(rate.is_enough(second, 100, 100, second * 10), Ok(()));
        }
        assert_eq!(rate.is_enough(second, 100, 100, second * 10), Ok(()), "enough, and begun anew");
        for _ in 0..9 {
            assert_eq!(rate.is_enough(second, 99, 100, second * 10), Ok(()));
        }
        assert_eq!(rate.is_enough(second, 99, 100, second * 10), Err((990, second * 10)));
        assert_eq!(rate.is_enough(second, 0, 100, second * 10), Ok(()), "begun anew");
        for _ in 0..1000 {
            assert_eq!(rate.is_enough(Duration::ZERO, 1, 100, second * 10), Ok(()), "nobody waited");
        }
    }
}
