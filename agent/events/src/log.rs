//! The node's events, for those who tell them and those who ask.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use coracle_model::Event;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::correlate::{Correlator, Kept, Occurrence};
use crate::journal::Journal;
use crate::write;

/// The node's events. Cheap to clone; all clones are the same events.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Once those kept before are read.
    events: OnceLock<Mutex<Correlator>>,
    /// The greatest version of any event.
    version: watch::Sender<u64>,
    closing: watch::Sender<bool>,
    /// Nothing writes (any more).
    closed: watch::Sender<bool>,
}

// === impl EventLog ===

impl EventLog {
    /// No events, kept in memory alone.
    pub fn in_memory() -> Self {
        Self::with(OnceLock::from(Mutex::default()))
    }

    /// The events in a directory, which need not be there yet, kept there from now on. What is wrong with the
    /// directory is said, and costs nothing but that events are not kept. Needs a tokio runtime.
    ///
    /// They are read beside what the caller goes on with: who tells or asks the first waits for that.
    pub fn open(directory: &Path) -> Self {
        let log = Self::with(OnceLock::new());
        log.shared.closed.send_replace(false);
        let (changes, closing, closed) =
            (log.changes(), log.shared.closing.subscribe(), log.shared.closed.clone());
        let (opened, directory) = (log.clone(), directory.to_owned());
        let read = spawn_blocking(move || {
            let journal = opened.restore(&directory);
            (opened, journal)
        });
        tokio::spawn(async move {
            if let Ok((log, (journal, written))) = read.await {
                write::keep(log, journal, written, changes, closing).await;
            }
            closed.send_replace(true);
        });
        log
    }

    fn with(events: OnceLock<Mutex<Correlator>>) -> Self {
        let shared = Shared {
            version: watch::Sender::new(0),
            events,
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(true),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes up the events in a directory. Returns what to keep others in, and the greatest version of these.
    fn restore(&self, directory: &Path) -> (Journal, u64) {
        let (journal, kept) = Journal::open(directory);
        let kept = kept.unwrap_or_else(|error| {
            tracing::error!("{error}");
            Vec::new()
        });
        let events = Correlator::restore(kept, Timestamp::now());
        let version = events.version();
        // Nothing has happened.
        self.shared.version.send_if_modified(|known| {
            *known = version;
            false
        });
        // Nobody else sets it.
        let _ = self.shared.events.set(Mutex::new(events));
        (journal, version)
    }

    /// Notes that something happened now. Waits for no disk.
    pub fn record(&self, told: Occurrence) {
        let mut events = self.lock();
        if let Some(event) = events.tell(told, Timestamp::now()) {
            self.shared.version.send_replace(event.version);
        }
    }

    /// The events there are, the one that happened last at the end.
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.lock().events(Timestamp::now()).cloned().collect()
    }

    /// Changes with every event that happens, after it is among [`EventLog::events`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Writes what is not written yet, as far as that is possible. What is told after this is not kept.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        // The sender lives as long as `self`.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// What is to be kept of versions greater than that.
    pub(crate) fn kept(&self, after: u64) -> Vec<Kept> {
        self.lock().kept(after, Timestamp::now())
    }

    fn lock(&self) -> MutexGuard<'_, Correlator> {
        self.shared.events.wait().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
