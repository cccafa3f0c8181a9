//! Asking an address whether what it serves has changed.

use std::time::{Duration, SystemTime};

use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, ETAG, HOST, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED, PROXY_AUTHORIZATION, USER_AGENT,
};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::time::timeout;

use crate::connect::{Connected, connect};
use crate::exchange::{ask, empty};
use crate::headers::{RequestHeaders, user_agent_of};
use crate::proxy::Proxies;
use crate::redirect::{MOST_REQUESTS, is_redirect, redirected, too_many_redirects};
use crate::retry::retry_after;
use crate::tls::Tls;
use crate::{Address, Error};

/// What an answer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first look-up to the last byte, all redirects among it.
    pub time: Duration,
    /// The body, in bytes.
    pub bytes: u64,
}

/// Asks one address, again and again.
pub struct Fetcher {
    address: Address,
    headers: RequestHeaders,
    proxies: Proxies,
    user_agent: HeaderValue,
    limits: Limits,
    tls: Tls,
}

/// What a check has found.
#[derive(Debug)]
pub enum Answer {
    /// There is something else than before, as far as can be told.
    Changed {
        /// All of it.
        body: Vec<u8>,
        /// What the next check is to be told.
        validators: Validators,
    },
    /// There is the same as before.
    Unchanged,
}

/// By what an answer is known again. `Default` is of no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Who has given it; another address may have the same tags.
    of: Option<Address>,
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

// === impl Fetcher ===

impl Fetcher {
    /// Asks the address as `user_agent`, with these headers.
    ///
    /// # Errors
    /// [`Error::Header`] when the user agent cannot be one.
    pub fn new(
        address: Address,
        headers: RequestHeaders,
        proxies: Proxies,
        user_agent: &str,
        limits: Limits,
    ) -> Result<Self, Error> {
        let user_agent = user_agent_of(user_agent)?;
        Ok(Self { address, headers, proxies, user_agent, limits, tls: Tls::default() })
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks what there is, and whether it is what `known` tells of.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub async fn check(&mut self, known: &Validators) -> Result<Answer, Error> {
        let time = self.limits.time;
        timeout(time, self.ask(known)).await.unwrap_or(Err(Error::Timeout(time)))
    }

    async fn ask(&mut self, known: &Validators) -> Result<Answer, Error> {
        let mut address = self.address.clone();
        // Once it was left, even what leads back is the choice of somebody else.
        let mut at_home = true;
        for _ in 0..MOST_REQUESTS {
            let connected = connect(&address, &self.proxies, &self.tls).await?;
            let conditional = known.of.as_ref().is_some_and(|of| of.same_resource(&address));
            let request = self.request(&address, &connected, at_home, conditional.then_some(known))?;
            let exchange = ask(connected.stream, request).await?;
            let (status, headers) = (exchange.response.status(), exchange.response.headers());
            match status {
                StatusCode::OK => {
                    let validators = Validators::of(&address, headers);
                    let body = exchange.body(self.limits.bytes).await?;
                    return Ok(Answer::Changed { body, validators });
                }
                StatusCode::NOT_MODIFIED if conditional => return Ok(Answer::Unchanged),
                _ if is_redirect(status) => {
                    let next = redirected(&address, status, headers)?;
                    at_home &= next.same_origin(&self.address);
                    address = next;
                }
                status => {
                    let retry_after = retry_after(headers, SystemTime::now());
                    return Err(Error::Status { status, retry_after });
                }
            }
        }
        Err(too_many_redirects(StatusCode::FOUND))
    }

    fn request(
        &self,
        address: &Address,
        connected: &Connected,
        at_home: bool,
        known: Option<&Validators>,
    ) -> Result<Request<http_body_util::Full<hyper::body::Bytes>>, Error> {
        let target = match &connected.by_proxy {
            Some(_) => address.absolute(),
            None => address.target().to_owned(),
        };
        let mut request = Request::get(target).header(HOST, address.authority()).body(empty())?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, self.user_agent.clone());
        if at_home {
            if let Some(credentials) = self.address.credentials() {
                headers.insert(AUTHORIZATION, credentials.clone());
            }
            self.headers.put_into(headers);
        }
        if let Some(Some(credentials)) = &connected.by_proxy {
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        if let Some(known) = known {
            let conditions = [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)];
            for (name, value) in conditions {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            }
        }
        Ok(request)
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("address", &self.address).finish_non_exhaustive()
    }
}

// === impl Validators ===

impl Validators {
    fn of(address: &Address, headers: &HeaderMap) -> Self {
        let (etag, last_modified) = (headers.get(ETAG).cloned(), headers.get(LAST_MODIFIED).cloned());
        let of = (etag.is_some() || last_modified.is_some()).then(|| address.clone());
        Self { of, etag, last_modified }
    }
}
