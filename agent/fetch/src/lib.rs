//! HTTP and HTTPS by the node's proxies: one bounded GET, and a client of many hosts.
//!
//! [`Fetcher::check`] asks an [`Address`] for what it serves, conditional on a change (RFC 9110, section 13). How long it
//! takes, how much it reads and where redirects lead is bounded. Nothing is kept open and nothing runs between two checks.
//!
//! [`Client`] makes the requests of those who know what to ask (a registry's client): it hands out answers as they
//! arrive, follows no redirect, and keeps connections for some seconds. Both trust the system's root certificates, the
//! client also what a [`Trust`] names.
//!
//! **Invariant:** what the requests carry ([`RequestHeaders`], a user and password in the address) reaches the
//! origin it was given for and no other, is in no message, and in no `Debug`.

mod address;
mod client;
mod connect;
mod error;
mod exchange;
mod fetcher;
mod headers;
mod identity;
mod lookup;
mod pool;
mod proxy;
mod redirect;
mod reference;
mod retry;
mod tls;

pub use address::Address;
pub use client::{Call, Client, Response, Waits};
pub use error::Error;
pub use fetcher::{Answer, Fetcher, Limits, Validators};
pub use headers::RequestHeaders;
pub use lookup::lookup;
pub use proxy::Proxies;
pub use redirect::{MOST_REQUESTS, is_redirect, redirected, too_many_redirects};
pub use reference::resolve;
pub use retry::retry_after;
pub use tls::{Identity, Tls, Trust};
