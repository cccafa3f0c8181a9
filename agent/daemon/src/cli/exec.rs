//! `coracle exec`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_server::Status;
use coracle_server::client::{Client, ExecOptions};

use super::session::{Ended, Session, killed};
use super::target::{Scope, container, pod, pod_name};
use super::terminal::is_terminal;

/// Run a program in a container
///
/// Exits with the program's exit code.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle exec web -- ls /etc              Print what the program writes
  coracle exec -it web -c shell -- sh      A shell, with this terminal
  tar c dir | coracle exec -i web -- tar x Feed the program's standard input")]
pub(super) struct Exec {
    /// The pod
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input to the program
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the program a terminal (with -i)
    #[arg(short, long)]
    tty: bool,
    /// Program and arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

// === impl Exec ===

impl Exec {
    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        let namespace = &self.scope.namespace;
        let pod = pod(client, namespace, &self.pod).await?;
        // The agent would only say that the container is not found.
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            anyhow::bail!(
                "cannot exec into a container in a completed pod; current phase is {}",
                pod.status.phase
            );
        }
        let container = container(&pod, self.container.as_deref())?;
        let mut tty = self.tty && self.stdin;
        if tty && !is_terminal() {
            writeln!(
                io::stderr(),
                "Unable to use a TTY - input is not a terminal or the right kind of file"
            )?;
            tty = false;
        }
        let options = ExecOptions { command: self.command, stdin: self.stdin, tty };
        let (input, outputs) = client.exec(namespace, &self.pod, &container, &options).await?;
        let session = Session { stdin: self.stdin, raw: tty, redraw: false, detach: None };
        match session.run(input, outputs).await? {
            Ended::Program(status) => finish(&status),
            Ended::Killed(signal) => Ok(killed(signal)),
            // No keys do.
            Ended::Detached => Ok(ExitCode::SUCCESS),
        }
    }
}

fn finish(status: &Status) -> anyhow::Result<ExitCode> {
    match status.exit_code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(code) => {
            writeln!(io::stderr(), "command terminated with exit code {code}")?;
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        None => Err(anyhow::anyhow!("{status}")),
    }
}
