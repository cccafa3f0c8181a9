//! The node's events, for those who tell them and those who ask.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::Event;
use jiff::Timestamp;
use tokio::sync::watch;

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
    events: Mutex<Correlator>,
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
        Self::with(Correlator::default())
    }

    /// The events in a directory, which need not be there yet, kept there from now on. What is wrong with the
    /// directory is said, and costs nothing but that events are not kept. Needs a tokio runtime.
    pub fn open(directory: &Path) -> Self {
        let (journal, kept) = Journal::open(directory);
        let kept = kept.unwrap_or_else(|error| {
            tracing::error!("{error}");
            Vec::new()
        });
        let log = Self::with(Correlator::restore(kept, Timestamp::now()));
        log.shared.closed.send_replace(false);
        let (writer, closed) = (log.clone(), log.shared.closed.clone());
        let written = log.lock().version();
        let (changes, closing) = (log.changes(), log.shared.closing.subscribe());
        tokio::spawn(async move {
            write::keep(writer, journal, written, changes, closing).await;
            closed.send_replace(true);
        });
        log
    }

    fn with(events: Correlator) -> Self {
        let shared = Shared {
            version: watch::Sender::new(events.version()),
            events: Mutex::new(events),
            closing: watch::Sender::new(false),
            closed: watch::Sender::new(true),
        };
        Self { shared: Arc::new(shared) }
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
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
