//! One bounded GET over HTTP or HTTPS: what an address serves, if it has changed.
//!
//! [`Fetcher::check`] asks an [`Address`] for what it serves, conditional on a change (RFC 9110, section 13), by
//! the proxies that the environment names and the root certificates of the system. How long it takes, how much it
//! reads and where redirects lead is bounded. Nothing is kept open and nothing runs between two checks.
//!
//! **Invariant:** what the requests carry ([`RequestHeaders`], a user and password in the address) reaches the
//! origin it was given for and no other, is in no message, and in no `Debug`.

mod address;
mod connect;
mod error;
mod exchange;
mod fetcher;
mod headers;
mod proxy;
mod retry;
mod tls;

pub use address::Address;
pub use error::Error;
pub use fetcher::{Answer, Fetcher, Limits, Validators};
pub use headers::RequestHeaders;
pub use proxy::Proxies;
