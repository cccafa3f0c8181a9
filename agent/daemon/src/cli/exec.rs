//! `coracle exec`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_server::client::{Client, ExecInput, ExecOptions, ExecOutput, ExecOutputs};
use coracle_server::{Status, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::target::{Scope, container, pod, pod_name};
use super::terminal::{RawMode, is_terminal, size};

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

/// What the user does while the program runs.
enum Input {
    Typed(usize),
    Ended,
    Resized,
    Killed(i32),
}

/// Sources of [`Input`].
struct Inputs {
    stdin: Option<tokio::io::Stdin>,
    resized: Signal,
    terminated: Signal,
    hung_up: Signal,
    buffer: Vec<u8>,
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
        let (mut input, mut outputs) = client.exec(namespace, &self.pod, &container, &options).await?;

        let mut inputs = Inputs::new(self.stdin)?;
        let raw = if tty { Some(RawMode::enter()?) } else { None };
        if tty {
            resize(&mut input).await;
        }
        let ended = {
            let printing = std::pin::pin!(print(&mut outputs));
            let feeding = std::pin::pin!(feed(&mut input, &mut inputs, tty));
            tokio::select! {
                status = printing => status.map(Ok),
                signal = feeding => Ok(Err(signal)),
            }
        };
        // Before anything is written: a raw terminal would begin the next line where this one ends.
        drop(raw);
        match ended? {
            Ok(status) => finish(&status),
            Err(signal) => Ok(ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)))),
        }
    }
}

/// Prints what comes until the program ended.
async fn print(outputs: &mut ExecOutputs) -> anyhow::Result<Status> {
    // Not the locked ones of std: a terminal that is held must not hold what is typed.
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        match outputs.next().await? {
            ExecOutput::Stdout(bytes) => {
                out.write_all(&bytes).await?;
                out.flush().await?;
            }
            ExecOutput::Stderr(bytes) => {
                err.write_all(&bytes).await?;
                err.flush().await?;
            }
            ExecOutput::Ended(status) => return Ok(*status),
        }
    }
}

/// Passes on what the user does. Returns the signal that is to end this process; never, when the
/// connection broke: whoever reads from it says why.
async fn feed(input: &mut ExecInput, inputs: &mut Inputs, tty: bool) -> i32 {
    loop {
        let sent = match inputs.next().await {
            Input::Typed(length) => input.stdin(&inputs.buffer[..length]).await,
            Input::Ended => input.close_stdin().await,
            Input::Resized if tty => {
                resize(input).await;
                Ok(())
            }
            Input::Resized => Ok(()),
            Input::Killed(signal) => return signal,
        };
        if sent.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn resize(input: &mut ExecInput) {
    // A terminal that tells no size leaves the program's at its default; so does one of 0 by 0.
    if let Ok(size @ TerminalSize { width: 1.., height: 1.. }) = size() {
        let _ = input.resize(size).await;
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

// === impl Inputs ===

impl Inputs {
    fn new(stdin: bool) -> io::Result<Self> {
        Ok(Self {
            stdin: stdin.then(tokio::io::stdin),
            resized: signal(SignalKind::window_change())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
            buffer: vec![0; 32 << 10],
        })
    }

    async fn next(&mut self) -> Input {
        let Self { stdin, resized, terminated, hung_up, buffer } = self;
        let typed = async {
            match stdin {
                Some(stdin) => stdin.read(buffer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = resized.recv() => Input::Resized,
            _ = terminated.recv() => Input::Killed(SignalKind::terminate().as_raw_value()),
            _ = hung_up.recv() => Input::Killed(SignalKind::hangup().as_raw_value()),
            read = typed => match read {
                Ok(length @ 1..) => Input::Typed(length),
                // An input that cannot be read has ended.
                Ok(0) | Err(_) => {
                    self.stdin = None;
                    Input::Ended
                }
            },
        }
    }
}
