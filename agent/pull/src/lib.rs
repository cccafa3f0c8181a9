//! Pulls of images: from a registry into the store, streamed, one per image however many ask for it.

pub mod access;
