//! Pulls of images: from a registry into the store, streamed, one per image however many ask for it.
//!
//! A [`Puller`] knows the registries' client and the store, and is told for each pull what to show. A pull runs as long
//! as anybody waits for it ([`Pull`]); dropped by all, it ends, its threads with it, and what layers it has finished the
//! next attempt takes up.

pub mod access;
mod error;
mod flight;
mod layers;
mod place;
mod progress;
mod pull;
mod puller;
mod stream;
mod thread;
mod turn;

pub use error::{Attempt, PullError};
pub use progress::{LayerProgress, LayerState, Progress, Stage};
pub use pull::Pulled;
pub use puller::{Pull, PullLimits, Puller};
pub use turn::Rate;
