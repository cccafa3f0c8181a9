//! Following logind: the pattern of its inhibitor locks (systemd.io, "Inhibitor Locks").
//!
//! ```text
//! connect ──> ask and take the lock ──> wait for a signal
//!    ^                  ^                 │ logind restarted: ask again
//!    │                  └─────────────────┤ called off: take a lock again
//!    └────────────────────────────────────┘ the bus is gone: connect again, at growing intervals
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use coracle_systemd::{connect, is_absent};
use futures_util::StreamExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;
use zbus::Connection;

use crate::drop_in;
use crate::error::{LogindError, call};
use crate::login1::{ManagerProxy, manager};

/// How long a bus that is gone is left alone, at first and at last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// How often, and after how long, logind is asked whether it has read its configuration: it is told by a signal.
const READS: u32 = 50;
const READING: Duration = Duration::from_millis(100);

/// What becomes of the machine.
#[derive(Debug)]
pub enum Change {
    /// It runs; a shutdown that had begun was called off.
    Running,
    /// It shuts down once the lock is dropped, or logind has waited for as long as it is configured to. Without a
    /// lock it waits for nobody: this was learned too late.
    ShuttingDown(Option<Inhibitor>),
    /// Nobody can tell, and nobody could so far.
    Unknown,
}

/// A lock that delays the machine's shutdown, until it is dropped.
#[derive(Debug)]
pub struct Inhibitor(#[expect(dead_code, reason = "held open")] OwnedFd);

/// Tells what becomes of the machine, whose shutdown is delayed by `needed` at most, until nobody listens or
/// there is no D-Bus on this machine. What is wrong is said in the log, and tried again where that may help.
pub async fn follow(needed: Duration, tell: UnboundedSender<Change>) {
    let mut follower = Follower { needed, tell, lock: None, told: false };
    let mut delay = FIRST;
    while !follower.tell.is_closed() {
        let error = match connect().await {
            Ok(connection) => match follower.listen(&connection).await {
                Ok(()) => {
                    tracing::warn!("the connection to the system's D-Bus broke; it is made again");
                    delay = FIRST;
                    sleep(delay).await;
                    continue;
                }
                Err(error) => error,
            },
            Err(error) if !follower.told && is_missing(&error) => {
                tracing::warn!(
                    "there is no D-Bus on this machine, and so no logind: its shutdown is not noticed, and ends pods \
                     as the machine ends any process; start the agent again once there is one"
                );
                follower.tell(Change::Unknown);
                return;
            }
            Err(error) => LogindError::Connect(error),
        };
        tracing::warn!(
            "a shutdown of the machine may not be noticed: {error}; tried again in {} s",
            delay.as_secs()
        );
        follower.nobody_can_tell();
        sleep(delay).await;
        delay = (delay * 2).min(LAST);
    }
}

struct Follower {
    needed: Duration,
    tell: UnboundedSender<Change>,
    lock: Option<Inhibitor>,
    told: bool,
}

// === impl Follower ===

impl Follower {
    /// Follows logind until the connection ends.
    async fn listen(&mut self, connection: &Connection) -> Result<(), LogindError> {
        let manager = manager(connection).await.map_err(call("speak with logind"))?;
        let mut owners =
            manager.inner().receive_owner_changed().await.map_err(call("learn of logind's restarts"))?;
        // Before logind is asked: what it says from then on is not missed.
        let mut signals =
            manager.receive_prepare_for_shutdown().await.map_err(call("learn of the machine's shutdown"))?;
        self.attend(connection, &manager).await?;
        loop {
            tokio::select! {
                signal = signals.next() => {
                    let Some(signal) = signal else { return Ok(()) };
                    match signal.args() {
                        Ok(said) if *said.start() => self.shutting_down(),
                        Ok(_) => {
                            tracing::info!("the shutdown of the machine was called off");
                            self.attend(connection, &manager).await?;
                        }
                        Err(error) => tracing::warn!("logind said what it does not say by its description: {error}"),
                    }
                }
                owner = owners.next() => match owner {
                    None => return Ok(()),
                    Some(None) => tracing::warn!("logind has left the bus; it is spoken with again when it is back"),
                    Some(Some(_)) => self.attend(connection, &manager).await?,
                },
                () = self.tell.closed() => return Ok(()),
            }
        }
    }

    /// Learns how things are, and takes a lock.
    async fn attend(
        &mut self,
        connection: &Connection,
        manager: &ManagerProxy<'_>,
    ) -> Result<(), LogindError> {
        match manager.preparing_for_shutdown().await {
            Ok(true) => {
                self.shutting_down();
                return Ok(());
            }
            Ok(false) => {}
            Err(error) if is_absent(&error) => {
                tracing::warn!(
                    "there is no logind on the system's D-Bus ({error}): a shutdown of the machine is not noticed, and \
                     ends pods as the machine ends any process, until there is one"
                );
                self.nobody_can_tell();
                return Ok(());
            }
            Err(error) => return Err(call("ask logind whether the machine shuts down")(error)),
        }
        let why = "Pods are given time to end when the machine shuts down";
        let taken = manager.inhibit("shutdown", "coracle", why, "delay").await;
        // In place of one that was taken before.
        self.lock = Some(Inhibitor(taken.map_err(call("take logind's inhibitor lock"))?.into()));
        self.tell(Change::Running);
        match self.raise_delay(connection, manager).await {
            Ok(()) => tracing::info!(
                "a shutdown of the machine waits for pods, {} s at most",
                self.needed.as_secs()
            ),
            Err(error) => {
                tracing::warn!("pods may have less time than configured when the machine shuts down: {error}")
            }
        }
        Ok(())
    }

    /// Lets logind wait for long enough, as the kubelet does.
    async fn raise_delay(
        &self,
        connection: &Connection,
        manager: &ManagerProxy<'_>,
    ) -> Result<(), LogindError> {
        let ask = || async {
            let delay = manager.inhibit_delay_max().await.map_err(call("ask logind how long it waits"))?;
            Ok::<_, LogindError>(Duration::from_micros(delay))
        };
        if ask().await? >= self.needed {
            return Ok(());
        }
        let directory = Path::new(drop_in::DIRECTORY);
        let path = drop_in::path(directory);
        drop_in::write(directory, self.needed)
            .map_err(|error| LogindError::DropIn { path: path.clone(), error })?;
        let systemd = coracle_systemd::ManagerProxy::new(connection)
            .await
            .map_err(call("have logind read its configuration"))?;
        systemd
            .kill_unit("systemd-logind.service", "all", rustix::process::Signal::HUP.as_raw())
            .await
            .map_err(call("have logind read its configuration"))?;
        let mut given = ask().await?;
        for _ in 0..READS {
            if given >= self.needed {
                return Ok(());
            }
            sleep(READING).await;
            given = ask().await?;
        }
        Err(LogindError::TooShort { given, needed: self.needed, path })
    }

    fn shutting_down(&mut self) {
        let lock = self.lock.take();
        if lock.is_none() {
            tracing::warn!("the machine shuts down, and there is no lock that has it wait for pods");
        }
        self.tell(Change::ShuttingDown(lock));
    }

    fn nobody_can_tell(&mut self) {
        if !self.told {
            self.tell(Change::Unknown);
        }
    }

    fn tell(&mut self, change: Change) {
        self.told = true;
        // Nobody listens any more: the agent ends.
        let _ = self.tell.send(change);
    }
}

/// Whether there is no such bus at all.
fn is_missing(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error) => {
            error.kind() == io::ErrorKind::NotFound
        }
        _ => false,
    }
}
