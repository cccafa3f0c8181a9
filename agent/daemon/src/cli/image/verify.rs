//! `coracle image verify`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::Store;

/// Check that images are as they came
///
/// Reads every file of every layer, and compares what its archive would be with the layer's digest.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only that everything is there, as the agent checks when it starts
    #[arg(long)]
    quick: bool,
}

// === impl Verify ===

impl Verify {
    pub(super) fn execute(&self, store: &Store) -> anyhow::Result<ExitCode> {
        let problems = if self.quick { store.verify()? } else { store.verify_whole()? };
        let mut out = io::stdout();
        for problem in &problems {
            writeln!(out, "{problem}")?;
        }
        if problems.is_empty() {
            writeln!(out, "all images are whole")?;
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
