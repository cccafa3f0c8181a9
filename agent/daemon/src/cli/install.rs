//! `coracle install`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::install::{Place, install};

/// Install this program as a service of this host, or put it in the place of an older one
///
/// Installs the program, units for systemd, manual pages, completions and examples, and a configuration file that sets
/// nothing where there is none. Starts the agent; one that runs is restarted, and its pods run on. Can be repeated.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sudo ./coracle install                   Below /usr/local, and start it
  sudo ./coracle install --prefix /usr --root image --no-start
                                           Into the file system of an image that is being made")]
pub(super) struct Install {
    /// Where to install
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// The root directory of a file system that is being made; nothing is started there
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Neither start the agent nor restart it
    #[arg(long)]
    no_start: bool,
}

// === impl Install ===

impl Install {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        install(&Place::new(self.prefix, self.root)?, !self.no_start)?;
        Ok(ExitCode::SUCCESS)
    }
}
