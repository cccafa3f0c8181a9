//! Which answers lead elsewhere, and to where (RFC 9110, section 15.4).

use hyper::header::LOCATION;
use hyper::{HeaderMap, StatusCode};

use crate::{Address, Error};

/// The most requests that are made for one: what the first is redirected to, and so on. Go's client makes as many.
pub const MOST_REQUESTS: usize = 10;

/// Whether whoever asked with GET or HEAD is to ask elsewhere.
pub fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where an answer leads.
///
/// # Errors
/// [`Error::Redirect`] where it names no address, or one that is not followed: from https to http.
pub fn redirected(from: &Address, status: StatusCode, headers: &HeaderMap) -> Result<Address, Error> {
    let failed = |reason: String| Error::Redirect { status, reason };
    let location = headers.get(LOCATION).ok_or_else(|| failed("but not told to where".to_owned()))?;
    let location = location.to_str().map_err(|_| failed("but to what is no URL".to_owned()))?;
    from.redirect(location).map_err(failed)
}

/// That [`MOST_REQUESTS`] were made and the last was redirected too.
pub fn too_many_redirects(status: StatusCode) -> Error {
    Error::Redirect { status, reason: format!("as were {MOST_REQUESTS} requests in a row") }
}
