//! `coracle image tag`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::{ImageName, Store};

use super::short;

/// Give an image another name
///
/// A name that another image has moves.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coracle image tag nginx:1.27 localhost/web:stable")]
pub(super) struct Tag {
    /// A name, or the beginning of an identifier
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The new names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ImageName>,
}

// === impl Tag ===

impl Tag {
    pub(super) fn execute(self, store: &Store) -> anyhow::Result<ExitCode> {
        for name in &self.names {
            let image = store.tag(&self.image, name)?;
            writeln!(io::stdout(), "tagged {} ({})", name.familiar(), short(&image.id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
