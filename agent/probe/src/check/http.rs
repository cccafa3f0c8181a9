//! `httpGet`: a GET request.

mod exchange;
mod request;
mod url;

use coracle_model::{Container, HttpGet, Scheme};
use tokio::time::{Instant, timeout_at};

use self::exchange::Response;
pub(super) use self::exchange::beside;
use self::request::{Headers, request};
use self::url::{Redirect, Url};
use super::{Checker, Limit, Outcome, dial, port};
use crate::error::Error;
use crate::node::{Node, Target};

/// The most requests one probe makes: what the first is redirected to, and so on.
const MOST_REQUESTS: usize = 10;

/// How a GET request was answered.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The status code.
    pub(crate) status: u16,
    /// Its beginning.
    pub(crate) body: Vec<u8>,
    /// It is a redirect that would be followed, were it not one too many.
    pub(crate) redirected_too_far: bool,
}

/// Why a GET request was not answered.
#[derive(Debug)]
pub(crate) enum Stop {
    /// No request could be made of the specification.
    Unusable(Error),
    /// The request failed.
    Failed(Url, Error),
    /// There was no answer in time.
    NoHead(Url),
    /// The answer was cut off.
    BrokenBody(Error),
    /// The answer did not end in time.
    SlowBody,
}

// === impl Stop ===

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(error) | Self::BrokenBody(error) => error.fmt(f),
            Self::Failed(url, error) => write!(f, "Get \"{url}\": {error}"),
            Self::NoHead(url) => write!(
                f,
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            ),
            Self::SlowBody => f.write_str(
                "context deadline exceeded (Client.Timeout or context cancellation while reading body)",
            ),
        }
    }
}

pub(super) async fn check<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    container: &Container,
    spec: &HttpGet,
    limit: Limit,
) -> Outcome {
    let asked = match get(checker, node, target, container, spec, "probe", Some(limit.deadline)).await {
        Ok(asked) => asked,
        Err(stop @ (Stop::Unusable(_) | Stop::BrokenBody(_))) => return Outcome::Unknown(stop.to_string()),
        Err(stop) => return Outcome::Failure(stop.to_string()),
    };
    match asked.status {
        200..300 => Outcome::Success,
        // As Kubernetes documents it, redirects without end count as success too. (In the kubelet's code,
        // ten of them are a failure.)
        300..400 => {
            let body = String::from_utf8_lossy(&asked.body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // No body in the message: it may hold what is not for everybody who may see events.
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// Makes a GET request as a probe (`purpose` is `probe`) or a hook (`lifecycle`) does, and follows redirects
/// within the host.
pub(crate) async fn get<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    container: &Container,
    spec: &HttpGet,
    purpose: &str,
    deadline: Option<Instant>,
) -> Result<Asked, Stop> {
    let https = spec.scheme == Scheme::Https;
    let port = port(&spec.port, container).map_err(Stop::Unusable)?;
    let host = dial::host(node, target, spec.host.as_deref());
    let mut url = Url::new(https, host.as_deref(), port, &spec.path);
    let mut headers =
        Headers::new(&spec.headers, purpose).map_err(|error| Stop::Failed(url.clone(), error))?;
    let mut requests = 1;
    loop {
        let response = once(checker, node, target, &url, &headers, deadline).await?;
        let location = response.location.as_deref().filter(|_| follows(response.status));
        match location.map(|location| url.redirect(location)) {
            Some(Redirect::Same { url: next, relative }) if requests < MOST_REQUESTS => {
                if !relative {
                    headers.forget_host();
                }
                url = next;
                requests += 1;
            }
            last => {
                let redirected_too_far = matches!(last, Some(Redirect::Same { .. }));
                return Ok(Asked { status: response.status, body: response.body, redirected_too_far });
            }
        }
    }
}

/// Whether a status asks for another request.
fn follows(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// One request, on a connection of its own.
async fn once<N: Node>(
    checker: &Checker,
    node: &N,
    target: &Target,
    url: &Url,
    headers: &Headers,
    deadline: Option<Instant>,
) -> Result<Response, Stop> {
    let failed = |error| Stop::Failed(url.clone(), error);
    let head = async {
        let stream = dial::connect(node, target, url.host.as_deref(), url.port).await?;
        if !url.https {
            return exchange::http1(stream, request(url, headers, false)?).await;
        }
        let stream = checker.tls.connect(stream, &url.hostname()).await?;
        if stream.speaks_h2() {
            exchange::http2(stream, request(url, headers, true)?).await
        } else {
            exchange::http1(stream, request(url, headers, false)?).await
        }
    };
    let head = within(deadline, head).await.ok_or_else(|| Stop::NoHead(url.clone()))?.map_err(failed)?;
    within(deadline, head.response()).await.ok_or(Stop::SlowBody)?.map_err(Stop::BrokenBody)
}

/// What the work gives, or nothing after the deadline.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}
