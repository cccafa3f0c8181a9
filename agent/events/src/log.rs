//! The node's events, for those who tell them and those who ask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::Event;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::correlate::{Correlator, Occurrence};

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
}

// === impl EventLog ===

impl EventLog {
    /// No events yet.
    pub fn new() -> Self {
        let shared = Shared { events: Mutex::default(), version: watch::Sender::new(0) };
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
    pub fn events(&self) -> Vec<Event> {
        self.lock().events(Timestamp::now()).cloned().collect()
    }

    /// Changes with every event that happens, after it is among [`EventLog::events`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Correlator> {
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}
