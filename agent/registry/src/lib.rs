//! A client of image registries: the [OCI distribution specification] and Docker's registry API v2.
//!
//! It knows of hosts and mirrors (containerd's `certs.d/<host>/hosts.toml`), of authentication, of indexes and
//! platforms, and hands blobs out as streams that survive a broken connection. What a store makes of them is not its
//! concern.
//!
//! **Invariant:** what a registry sends is bounded in size and time before it is looked at, and a document is used only
//! when it has the digest it was asked for by. **Invariant:** a [`Credential`] reaches the host it is for, and the token
//! service that this host names, and no other; it is in no message and in no `Debug`.
//!
//! [OCI distribution specification]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md

mod answer;
mod ask;
mod auth;
mod blob;
mod client;
mod credential;
mod descriptor;
mod document;
mod error;
#[doc(hidden)]
pub mod foreign;
mod hosts;
mod platform;
mod rounds;
mod settings;
mod wrong;

pub use coracle_fetch::{Error as FetchError, Proxies};
pub use coracle_model::Platform;

pub use answer::Said;
pub use blob::Blob;
pub use client::Client;
pub use credential::{Credential, Secret};
pub use descriptor::{Descriptor, Manifest};
pub use error::Error;
pub use settings::{Limits, Settings};
