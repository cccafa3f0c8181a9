//! The coracle daemon and its command line.

mod agent;
mod check;
mod cli;
mod config;
mod duration;
mod install;
mod registry;
mod run;
mod uninstall;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use coracle_server::client::ClientError;

/// What a shell sees of a program that SIGPIPE ended: 128 and the signal's number.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    coracle_linux::look_names_up_without_modules();
    match cli::Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

/// Says why, once. Nobody is left to tell when standard error is gone.
fn report(error: &anyhow::Error) -> ExitCode {
    let mut stderr = io::stderr();
    if let Some(error) = error.downcast_ref::<io::Error>()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        // Whoever read our output, such as `head`, has enough: no error, and no need of words.
        return ExitCode::from(BROKEN_PIPE);
    }
    let line = match error.downcast_ref::<ClientError>() {
        // As kubectl prints it: the message says itself that it is an error.
        Some(refused @ ClientError::Status(_)) => format!("{refused}\n"),
        _ => format!("error: {}\n", words::whole(error)),
    };
    // In one piece: others may write to the same place.
    let _ = stderr.write_all(line.as_bytes());
    ExitCode::FAILURE
}
