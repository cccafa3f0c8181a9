//! Why a registry has not given what it was asked for.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_fetch::Error as FetchError;
use coracle_model::Digest;
use hyper::StatusCode;

use crate::answer::Said;

/// Why there is nothing. No message shows a credential, a token or a query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be made.
    #[error("the client of image registries: {0}")]
    Setup(#[source] FetchError),
    /// What the configuration says of a host cannot be used.
    #[error("{}: {reason}", path.display())]
    HostsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// No host may be asked.
    #[error(
        "{what}: by its hosts.toml, no host of {registry} may be asked ({capability} is in no one's capabilities)"
    )]
    NoHost {
        /// What was to be asked for.
        what: String,
        /// The registry, as names of images have it.
        registry: String,
        /// What none of its hosts can do.
        capability: &'static str,
    },
    /// Every host that was asked has failed, in the order they were asked in.
    #[error("{what}: {}", Failures(failures))]
    Hosts {
        /// What they were asked for.
        what: String,
        /// Each host, and what has come of it.
        failures: Vec<(String, Error)>,
    },
    /// There was no answer.
    #[error("{}", Advised(.0))]
    Fetch(#[from] FetchError),
    /// The registry does not know who asks, or does not let them.
    #[error("{} ({status}{said}): {advice}", word_for(*.status))]
    Unauthorized {
        /// 401 or 403.
        status: StatusCode,
        /// What it said.
        said: Said,
        /// What may help.
        advice: &'static str,
    },
    /// There is no such thing.
    #[error("not found ({status}{said}): {advice}")]
    NotFound {
        /// 404, or 410.
        status: StatusCode,
        /// What it said.
        said: Said,
        /// What may help.
        advice: &'static str,
    },
    /// The registry wants to be left alone.
    #[error("too many requests ({status}{said}){}", Until(until))]
    TooManyRequests {
        /// 429, or another with `Retry-After`.
        status: StatusCode,
        /// What it said.
        said: Said,
        /// Until when, if it has said that.
        until: Option<SystemTime>,
    },
    /// Another status than one that brings what was asked for.
    #[error("has answered with status {status}{said}{}", Wait(retry_after))]
    Status {
        /// The status.
        status: StatusCode,
        /// What it said.
        said: Said,
        /// For how long it asks not to be asked again.
        retry_after: Option<Duration>,
    },
    /// The registry does not say how to become known to it.
    #[error("wants credentials, but says in no way that is understood how to show them: {0}")]
    Challenge(String),
    /// The token service that the registry names has given no token.
    #[error("the token service {realm}: {source}")]
    Token {
        /// The service's address.
        realm: String,
        /// Why.
        source: Box<Error>,
    },
    /// The answer is of a type that nothing of the kind can have.
    #[error("{0}")]
    ContentType(String),
    /// A document is not what it is said to be.
    #[error("its {document} cannot be used: {reason}")]
    Document {
        /// Which, such as `manifest`.
        document: &'static str,
        /// Why.
        reason: String,
    },
    /// What was sent is not what was asked for.
    #[error("has sent what has another digest than was asked for: {actual} instead of {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There is no image for this machine.
    #[error("has no image for {wanted}; there is: {available}")]
    Platform {
        /// What was looked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// A document may not be so large.
    #[error("{what} of {size} bytes is too large: at most {limit} are read")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is said to be.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// There is another number of bytes than the manifest says.
    #[error("has sent {actual} bytes instead of the {expected} that the manifest tells of")]
    Size {
        /// What the manifest says.
        expected: u64,
        /// How many there are, or would be.
        actual: u64,
    },
    /// More than the manifest says is sent.
    #[error("sends more than the {0} bytes that the manifest tells of")]
    Endless(u64),
    /// The connection has ended too early.
    #[error("has ended after {actual} of {expected} bytes")]
    Truncated {
        /// What the manifest says.
        expected: u64,
        /// How many there were.
        actual: u64,
    },
    /// A part of a blob is not that which was asked for.
    #[error("has answered a request for the bytes from {from} on with {range:?}")]
    Range {
        /// What was asked for.
        from: u64,
        /// `Content-Range`.
        range: String,
    },
    /// Nothing has come for too long.
    #[error("has sent nothing for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    /// Too little has come for too long.
    #[error("sends only {bytes} bytes in {} s, and must send {least} a second", time.as_secs_f32())]
    Trickle {
        /// How many came.
        bytes: u64,
        /// In which time.
        time: Duration,
        /// How many must come in a second.
        least: u64,
    },
}

/// Hosts and what each has said.
struct Failures<'a>(&'a [(String, Error)]);

/// An error, and what to do about it.
struct Advised<'a>(&'a FetchError);

/// How long not to try again.
struct Wait<'a>(&'a Option<Duration>);

/// When to try again.
struct Until<'a>(&'a Option<SystemTime>);

// === impl Error ===

impl Error {
    /// Whether a registry has said "no" to the credentials, so that others may help.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Unauthorized { .. } => true,
            Self::Token { source, .. } => source.is_unauthorized(),
            Self::Hosts { failures, .. } => failures.iter().any(|(_, error)| error.is_unauthorized()),
            _ => false,
        }
    }

    /// Whether there is no such image, or no such part of one, with any host.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Hosts { failures, .. } => {
                !failures.is_empty() && failures.iter().all(|(_, error)| error.is_not_found())
            }
            _ => false,
        }
    }

    /// Whether a host asks to be left alone for longer than a retry within this request would wait.
    pub fn is_too_many_requests(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } => true,
            Self::Token { source, .. } => source.is_too_many_requests(),
            Self::Hosts { failures, .. } => failures.iter().any(|(_, error)| error.is_too_many_requests()),
            _ => false,
        }
    }

    /// When to try again at the earliest, where a host has said that.
    pub fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::TooManyRequests { until, .. } => *until,
            Self::Token { source, .. } => source.retry_at(),
            Self::Hosts { failures, .. } => failures.iter().filter_map(|(_, error)| error.retry_at()).min(),
            _ => None,
        }
    }

    /// Whether another attempt may do better, and how long to wait before it at least.
    pub(crate) fn retry(&self, longest: Duration) -> Option<Duration> {
        match self {
            Self::Fetch(error) => error.is_passing().then_some(Duration::ZERO),
            Self::TooManyRequests { until, .. } => match until {
                None => Some(Duration::ZERO),
                Some(until) => {
                    let wait = until.duration_since(SystemTime::now()).unwrap_or_default();
                    (wait <= longest).then_some(wait)
                }
            },
            Self::Status { status, retry_after, .. }
                if status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT =>
            {
                Some(retry_after.unwrap_or_default()).filter(|wait| *wait <= longest)
            }
            Self::Token { source, .. } => source.retry(longest),
            Self::Truncated { .. } | Self::Stalled(_) | Self::Trickle { .. } => Some(Duration::ZERO),
            _ => None,
        }
    }
}

fn word_for(status: StatusCode) -> &'static str {
    if status == StatusCode::FORBIDDEN { "denied" } else { "unauthorized" }
}

/// What to do where TLS cannot be agreed on.
fn advice(error: &FetchError) -> &'static str {
    use tokio_rustls::rustls::CertificateError;
    if let FetchError::Roots(_) = error {
        return " (or, for this registry alone, name its root as `ca` in the hosts.toml of this registry)";
    }
    match error.certificate() {
        Some(CertificateError::UnknownIssuer) => {
            " (the certificate is from nobody this machine trusts: name its root as `ca` in the hosts.toml of this \
             registry, or install it in the system)"
        }
        Some(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            " (the certificate has expired, or this machine's clock is wrong)"
        }
        _ if error.wants_certificate() => {
            " (it wants to be shown another certificate: name one that it believes, and its key, as `client` in the \
             hosts.toml of this registry)"
        }
        _ if error.has_answered_without_tls() => {
            " (it seems to speak no TLS: if it may be asked without, name it with http:// in the hosts.toml of this \
             registry)"
        }
        _ => "",
    }
}

// === impl Failures ===

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (host, error)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{host}: {error}")?;
        }
        Ok(())
    }
}

// === impl Advised ===

impl fmt::Display for Advised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, advice(self.0))
    }
}

// === impl Wait ===

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(wait) => write!(f, ", and asks not to be asked again for {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

// === impl Until ===

impl fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(until) => write!(f, ": try again after {}", httpdate::fmt_http_date(*until)),
            None => f.write_str(": try again later"),
        }
    }
}
