//! Writing events down, beside everything else.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::EventLog;
use crate::error::EventsError;
use crate::journal::Journal;

/// Events this close together are written as one: what a pod's start tells does not compete with the start for
/// the disk. A killed agent takes this much with it.
const BATCH: Duration = Duration::from_millis(200);
/// What was written is flushed after this long. A loss of power takes this much with it.
const FLUSH: Duration = Duration::from_secs(5);

/// The journal, and how it stands.
struct Writer {
    log: EventLog,
    journal: Journal,
    /// The greatest version that was written.
    written: u64,
    /// The last attempt failed, and that was said.
    failing: bool,
}

/// Writes what happens after the version that is `written` already, until the log closes.
pub(crate) async fn keep(
    log: EventLog,
    journal: Journal,
    written: u64,
    mut changes: watch::Receiver<u64>,
    mut closing: watch::Receiver<bool>,
) {
    let mut writer = Writer { log, journal, written, failing: false };
    let mut flush_at = None;
    loop {
        let closes = tokio::select! {
            changed = changes.changed() => changed.is_err(),
            () = asked(&mut closing) => true,
            () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                flush_at = None;
                let Some(flushed) = writer.off_the_runtime(Writer::flush).await else { return };
                writer = flushed;
                continue;
            }
        };
        if !closes {
            tokio::select! {
                () = sleep(BATCH) => {}
                () = asked(&mut closing) => {}
            }
        }
        changes.mark_unchanged();
        let Some(written) = writer.off_the_runtime(Writer::write).await else { return };
        writer = written;
        if closes {
            writer.off_the_runtime(Writer::flush).await;
            return;
        }
        flush_at = flush_at.or_else(|| Some(Instant::now() + FLUSH));
    }
}

/// Waits until the log closes.
async fn asked(closing: &mut watch::Receiver<bool>) {
    // The writer has the sender: see `EventLog`.
    let _ = closing.wait_for(|closing| *closing).await;
}

// === impl Writer ===

impl Writer {
    /// A disk that hangs holds up a thread of its own and nothing else. `None` where the runtime ends.
    async fn off_the_runtime(mut self, work: fn(&mut Self)) -> Option<Self> {
        spawn_blocking(move || {
            work(&mut self);
            self
        })
        .await
        .ok()
    }

    /// Writes what is not written yet.
    fn write(&mut self) {
        let new = self.log.kept(self.written);
        let Some(latest) = new.iter().map(|one| one.event.version).max() else { return };
        match self.journal.write(&new, || self.log.kept(0)) {
            Ok(()) => {
                self.written = latest;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the node's events are kept on disk again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.journal.sync() {
            self.failed(&error);
        }
    }

    /// Says what is wrong, once: it may be wrong for long.
    fn failed(&mut self, error: &EventsError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!("{error}");
        }
    }
}
