//! This terminal, or these streams, and a program elsewhere.

use std::io;
use std::process::ExitCode;

use coracle_server::client::{ExecInput, ExecOutput, ExecOutputs};
use coracle_server::{Status, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::detach::DetachKeys;
use super::terminal::{RawMode, size};

/// How the streams are connected.
pub(super) struct Session {
    /// Standard input is passed on.
    pub(super) stdin: bool,
    /// This terminal stands for the program's.
    pub(super) raw: bool,
    /// The program was there before: have it draw its screen again.
    pub(super) redraw: bool,
    /// What leaves the program alone.
    pub(super) detach: Option<DetachKeys>,
}

/// How it ended.
pub(super) enum Ended {
    /// The program ended, or failed to be reached.
    Program(Status),
    /// By the keys for it.
    Detached,
    /// By a signal to this process.
    Killed(i32),
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

// === impl Session ===

impl Session {
    /// Prints what comes and passes on what is typed, until the end.
    pub(super) async fn run(
        mut self,
        mut input: ExecInput,
        mut outputs: ExecOutputs,
    ) -> anyhow::Result<Ended> {
        let mut inputs = Inputs::new(self.stdin)?;
        let raw = if self.raw { Some(RawMode::enter()?) } else { None };
        if self.raw {
            if self.redraw
                && let Ok(TerminalSize { width, height }) = size()
            {
                // Another size, then the right one: programs draw their screen when its size changes.
                let other = TerminalSize { width: width.saturating_add(1), height: height.saturating_add(1) };
                let _ = input.resize(other).await;
            }
            resize(&mut input).await;
        }
        let ended = {
            let printing = std::pin::pin!(print(&mut outputs));
            let feeding = std::pin::pin!(self.feed(&mut input, &mut inputs));
            tokio::select! {
                status = printing => status.map(Ended::Program),
                ended = feeding => Ok(ended),
            }
        };
        // Before anything is written: a raw terminal would begin the next line where this one ends.
        drop(raw);
        ended
    }

    /// Passes on what the user does. Returns what is to end this process; never, when the connection broke:
    /// whoever reads from it says why.
    async fn feed(&mut self, input: &mut ExecInput, inputs: &mut Inputs) -> Ended {
        let mut passed = Vec::new();
        loop {
            let sent = match (inputs.next().await, &mut self.detach) {
                (Input::Typed(length), None) => input.stdin(&inputs.buffer[..length]).await,
                (Input::Typed(length), Some(keys)) => {
                    passed.clear();
                    let detached = keys.pass(&inputs.buffer[..length], &mut passed);
                    let sent = input.stdin(&passed).await;
                    if detached {
                        return Ended::Detached;
                    }
                    sent
                }
                (Input::Ended, keys) => {
                    let rest = keys.as_mut().map(DetachKeys::rest).unwrap_or_default();
                    match input.stdin(&rest).await {
                        Ok(()) => input.close_stdin().await,
                        failed => failed,
                    }
                }
                (Input::Resized, _) if self.raw => {
                    resize(input).await;
                    Ok(())
                }
                (Input::Resized, _) => Ok(()),
                (Input::Killed(signal), _) => return Ended::Killed(signal),
            };
            if sent.is_err() {
                std::future::pending::<()>().await;
            }
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

async fn resize(input: &mut ExecInput) {
    // A terminal that tells no size leaves the program's at its default; so does one of 0 by 0.
    if let Ok(size @ TerminalSize { width: 1.., height: 1.. }) = size() {
        let _ = input.resize(size).await;
    }
}

/// What a shell sees of a program that a signal ended.
pub(super) fn killed(signal: i32) -> ExitCode {
    ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
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
