//! The plugin as a program of its own, for any kubelet.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser;
use coracle_device_plugin::CommandLine;
use tracing_subscriber::EnvFilter;

/// Offer the devices of this host to any kubelet: GPUs, and what is configured
#[derive(Debug, Parser)]
#[command(name = "coracle-device-plugin", version, max_term_width = 100)]
struct Program {
    #[command(flatten)]
    command_line: CommandLine,
}

fn main() -> ExitCode {
    let program = Program::parse();
    let filter = EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    match program.command_line.execute(&[], None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
