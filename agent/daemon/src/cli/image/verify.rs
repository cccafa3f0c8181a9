//! `coracle image verify`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_image::Store;

/// Check that images are as they came
///
/// Reads every file of every layer, and compares what its archive would be with the layer's digest. That finds content
/// that was changed, and not owners, modes, times, extended attributes and files that are more than there were: --exact
/// finds those, too.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Only that everything is there, as the agent checks when it starts
    #[arg(long)]
    quick: bool,
    /// Also unpack every layer again, beside itself, and compare all that a container sees; takes room for the largest
    #[arg(long, conflicts_with = "quick")]
    exact: bool,
}

// === impl Verify ===

impl Verify {
    pub(super) fn execute(&self, store: &Store) -> anyhow::Result<ExitCode> {
        let problems = match (self.quick, self.exact) {
            (true, _) => store.verify()?,
            (_, true) => store.verify_exact()?,
            _ => store.verify_whole()?,
        };
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
