//! `coracle image rm`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::{Removed, Store};
use coracle_server::client::Client;

use super::users::users;
use super::{short, size};

/// Remove a name, and with its last name the image
#[derive(Debug, Args)]
#[command(visible_alias = "remove")]
pub(super) struct Remove {
    /// Names, or beginnings of identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

// === impl Remove ===

impl Remove {
    pub(super) fn execute(self, store: &Store, client: &Client) -> anyhow::Result<ExitCode> {
        let users = users(client)?;
        let mut out = io::stdout();
        for image in &self.images {
            match store.remove(image, |id| users.get(&id.to_string()).cloned())? {
                Removed::Untagged(name) => writeln!(out, "untagged {}", name.familiar())?,
                Removed::Deleted { id, freed, .. } => {
                    writeln!(out, "deleted {} ({} freed)", short(&id), size(freed))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
