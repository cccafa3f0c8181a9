//! The command line: one file per verb.

mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Overrides};

/// Runs Kubernetes pods on this machine, with nothing else installed.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the version
    Version,
}

// === impl Cli ===

impl Cli {
    /// Does what the command line asks.
    pub(crate) fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Version => version::execute(),
        }
    }

    /// The configuration the command line and its file make.
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.overrides)?)
    }
}
