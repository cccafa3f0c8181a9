//! `coracle image rm`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::{ImageError, Removed, Store};
use coracle_server::client::Client;

use super::users::Users;
use super::{after, short, size};

/// Remove a name, and with its last name the image
///
/// By an identifier the image goes with all its names. What a pod wants or a container uses is never removed.
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(super) struct Remove {
    /// Names, or beginnings of identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove images with all their names, and do not mind what is not there
    #[arg(short, long)]
    force: bool,
}

// === impl Remove ===

impl Remove {
    pub(super) fn execute(self, store: &Store, client: &Client) -> anyhow::Result<ExitCode> {
        let users = Users::ask(client, store)?;
        let mut failed = false;
        for image in &self.images {
            match self.remove(store, &users, image) {
                Ok(removed) => print(&removed)?,
                Err(error @ ImageError::NotFound(_)) if self.force => eprintln!("{error}"),
                // What cannot be removed keeps none of the others.
                Err(error) if self.images.len() > 1 => {
                    eprintln!("error: {error}");
                    failed = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn remove(&self, store: &Store, users: &Users, image: &str) -> Result<Removed, ImageError> {
        // By its identifier it goes with all names.
        let text = if self.force { store.find(image)?.id.to_string() } else { image.to_owned() };
        store.remove(&text, |id| users.of(id)).map_err(|error| match error {
            ImageError::InUse { user, .. } => ImageError::InUse { image: image.to_owned(), user },
            ImageError::Pinned { pins, .. } => ImageError::Pinned { image: image.to_owned(), pins },
            error => error,
        })
    }
}

fn print(removed: &Removed) -> io::Result<()> {
    let mut out = io::stdout();
    match removed {
        Removed::Untagged(name) => writeln!(out, "untagged {}", name.familiar()),
        Removed::Deleted { id, names, freed } => {
            writeln!(out, "deleted {}{} ({} freed)", short(id), after(names), size(*freed))
        }
    }
}
