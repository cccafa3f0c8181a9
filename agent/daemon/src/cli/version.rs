//! `coracle version`.

use std::io::Write;
use std::process::ExitCode;

pub(super) fn execute() -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "coracle {}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}
