//! The agent as a service of the host: what the service manager has told it, and is told.

mod activation;
mod journal;
mod notifier;
mod stop;
mod watchdog;
mod words;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

pub(crate) use journal::layer as journal_layer;
pub(super) use notifier::Notifier;
pub(super) use stop::{end_pods, is_for_good};
pub(super) use watchdog::watch;
pub(super) use words::tell_status;

/// What a service manager tells in the environment; it is for this process alone.
const VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "SYSTEMD_EXEC_PID",
];

/// The service manager, as far as there is one.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// Whom to tell what.
    pub(super) notifier: Notifier,
    /// Within which time it wants to hear that the agent is alive.
    pub(super) watchdog: Option<Duration>,
    /// Whether systemd has executed this process, as a unit of its own.
    pub(super) is_systemd: bool,
    /// The API's socket, if it holds it.
    listener: Option<UnixListener>,
}

// === impl ServiceManager ===

impl ServiceManager {
    /// Takes what is in the environment, so that nothing that is started here inherits it. To be called before anything
    /// else of the agent is there.
    ///
    /// # Errors
    /// When something was handed over that is not what it should be.
    pub(super) fn take() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let mine = |name: &str| variable(name).is_none_or(|pid| pid == std::process::id().to_string());
        let notifier = Notifier::new(std::env::var_os("NOTIFY_SOCKET"));
        let watchdog = match variable("WATCHDOG_USEC").filter(|_| mine("WATCHDOG_PID")) {
            Some(text) => {
                let microseconds = text.parse().ok().filter(|it| *it > 0);
                let microseconds =
                    microseconds.with_context(|| format!("WATCHDOG_USEC={text} is no time"))?;
                Some(Duration::from_micros(microseconds))
            }
            None => None,
        };
        // Without the variable (systemd before 248) a unit cannot be told from a shell in one.
        let is_systemd = variable("SYSTEMD_EXEC_PID").is_some() && mine("SYSTEMD_EXEC_PID");
        let listener =
            match variable("LISTEN_FDS").filter(|_| variable("LISTEN_PID").is_some() && mine("LISTEN_PID")) {
                Some(number) => Some(activation::take(&number)?),
                None => None,
            };
        coracle_linux::forget_variables(&VARIABLES).context("cannot clear the environment")?;
        Ok(Self { notifier, watchdog, is_systemd, listener })
    }

    /// The API's socket, if the service manager holds it; it has to be the one at this path.
    ///
    /// # Errors
    /// When it is another.
    pub(super) fn listener(&mut self, path: &Path) -> anyhow::Result<Option<UnixListener>> {
        let Some(listener) = self.listener.take() else { return Ok(None) };
        activation::check_path(&listener, path)?;
        Ok(Some(listener))
    }
}
