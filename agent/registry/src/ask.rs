//! One request to one host: who asks, redirects, and what the status means.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coracle_fetch::{
    Address, Call, Client, MOST_REQUESTS, Response, Waits, is_redirect, redirected, too_many_redirects,
};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, StatusCode};

use crate::answer::{refusal, shown};
use crate::auth::{Asking, Authorizer, Challenge};
use crate::credential::Credential;
use crate::error::Error;
use crate::hosts::{Host, Scheme};
use crate::settings::Limits;

/// Asks hosts.
pub(crate) struct Asker {
    client: Client,
    pub(crate) authorizer: Authorizer,
    limits: Limits,
    /// Which hosts on the loopback have turned out not to speak TLS.
    plain: Mutex<HashSet<String>>,
    /// Which hosts could not be reached, and since when.
    unreached: Mutex<HashMap<String, Instant>>,
}

/// How often one request is asked for credentials.
const MOST_CHALLENGES: usize = 4;

/// For how long a host that could not be reached is asked after all others: a pull makes many requests, and is not to
/// wait for a mirror that is down with each.
const UNREACHED: Duration = Duration::from_secs(60);

/// What is asked for.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) repository: &'a str,
    /// Within the repository, such as `manifests/latest`.
    pub(crate) path: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) credential: &'a Credential,
}

// === impl Asker ===

impl Asker {
    pub(crate) fn new(client: Client, limits: Limits) -> Self {
        let authorizer = Authorizer::new(client.clone(), limits);
        Self { client, authorizer, limits, plain: Mutex::default(), unreached: Mutex::default() }
    }

    /// Asks a host; its answer has a status that brings something, or says that a range cannot be had.
    pub(crate) async fn ask(&self, host: &Host, request: &Request<'_>) -> Result<Response, Error> {
        let either = host.scheme == Scheme::Either;
        let https = match host.scheme {
            Scheme::Https => true,
            Scheme::Http => false,
            Scheme::Either => !lock(&self.plain).contains(host.authority()),
        };
        let answer = match self.authorized(host, https, request).await {
            Err(Error::Fetch(error)) if https && either && error.is_without_tls() => {
                lock(&self.plain).insert(host.authority().to_owned());
                self.authorized(host, false, request).await
            }
            answer => answer,
        };
        match &answer {
            Err(Error::Fetch(error)) if error.is_unconnected() => {
                lock(&self.unreached).insert(host.authority().to_owned(), Instant::now());
            }
            _ => {
                lock(&self.unreached).remove(host.authority());
            }
        }
        answer
    }

    /// Whether a host could not be reached some seconds ago.
    pub(crate) fn is_unreached(&self, host: &Host) -> bool {
        lock(&self.unreached).get(host.authority()).is_some_and(|since| since.elapsed() < UNREACHED)
    }

    async fn authorized(&self, host: &Host, https: bool, request: &Request<'_>) -> Result<Response, Error> {
        let Request { repository, credential, .. } = *request;
        let asking = Asking { host, https, repository, credential };
        let mut shown = self.authorizer.known(asking).await?;
        // Nothing is shown, then a token that was kept, then a fresh one.
        for _ in 0..MOST_CHALLENGES {
            let header = shown.as_ref().map(|shown| &shown.header);
            let (response, at_home) = self.follow(host, https, request, header).await?;
            if response.status != StatusCode::UNAUTHORIZED || !at_home {
                return self.check(response, credential).await;
            }
            // A token that was just made is as good as the next one.
            if shown.as_ref().is_some_and(|shown| shown.fresh) {
                return self.check(response, credential).await;
            }
            let Some(challenge) = Challenge::of(&response.headers) else {
                return match response.headers.get(WWW_AUTHENTICATE) {
                    Some(other) => {
                        Err(Error::Challenge(self::shown(&String::from_utf8_lossy(other.as_bytes()))))
                    }
                    None => self.check(response, credential).await,
                };
            };
            let refused = shown.as_ref().map(|shown| &shown.header);
            let Some(next) = self.authorizer.answer(asking, challenge, refused).await? else {
                return self.check(response, credential).await;
            };
            response.discard().await;
            shown = Some(next);
        }
        Err(Error::Challenge(format!("it has refused what was shown {MOST_CHALLENGES} times")))
    }

    /// Asks, and follows where the answer leads. The second is whether it is still the host's own.
    async fn follow(
        &self,
        host: &Host,
        https: bool,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Error> {
        let home = host.address(https, request.repository, request.path)?;
        let connect = host.dial_timeout.unwrap_or(self.limits.connect);
        let waits = Waits { connect, answer: self.limits.answer };
        let mut address: Address = home.clone();
        // Once it was left, even what leads back is the choice of somebody else.
        let mut at_home = true;
        for _ in 0..MOST_REQUESTS {
            let mut headers = request.headers.clone();
            if at_home {
                headers.extend(host.headers.clone());
                if let Some(authorization) = authorization {
                    headers.insert(AUTHORIZATION, authorization.clone());
                }
            }
            let call =
                Call { method: request.method.clone(), address: &address, headers, body: Bytes::new() };
            let tls = if at_home { &host.tls } else { &host.elsewhere };
            let response = self.client.send(call, tls, waits).await?;
            if !is_redirect(response.status) {
                return Ok((response, at_home));
            }
            address = redirected(&address, response.status, &response.headers)?;
            at_home &= address.same_origin(&home);
            response.discard().await;
        }
        Err(too_many_redirects(StatusCode::FOUND).into())
    }

    async fn check(&self, response: Response, credential: &Credential) -> Result<Response, Error> {
        match response.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            _ => Err(refusal(response, credential).await),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
