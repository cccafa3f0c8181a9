//! What differs in its message alone is combined once there is much of it: client-go's `EventAggregator`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use coracle_model::{Event, EventType};
use jiff::Timestamp;

use crate::spam;

/// From so many different messages on, they are combined.
const MOST_MESSAGES: usize = 10;
/// When nothing similar happened for this long, it begins anew.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The most kinds of events that are remembered: client-go's cache has as many.
const MAX_KEYS: usize = 4096;

/// The messages of similar events: of one source, object, type and reason.
#[derive(Debug, Default)]
pub(crate) struct Similar {
    groups: HashMap<Key, Group>,
    turn: u64,
}

/// What similar events have in common. The part of the object is not of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) object: spam::Key,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
}

#[derive(Debug)]
struct Group {
    /// Fewer than [`MOST_MESSAGES`].
    messages: BTreeSet<String>,
    last: Timestamp,
    turn: u64,
}

// === impl Similar ===

impl Similar {
    /// Takes note of one more event. Whether it is to be combined with those before it.
    pub(crate) fn combines(&mut self, key: Key, message: &str, now: Timestamp) -> bool {
        if self.groups.len() >= MAX_KEYS && !self.groups.contains_key(&key) {
            self.make_room(now);
        }
        self.turn += 1;
        let turn = self.turn;
        let new = || Group { messages: BTreeSet::new(), last: now, turn };
        let group = self.groups.entry(key).or_insert_with(new);
        if group.is_over(now) {
            *group = new();
        }
        (group.last, group.turn) = (now, turn);
        if group.messages.contains(message) {
            return false;
        }
        if group.messages.len() + 1 >= MOST_MESSAGES {
            return true;
        }
        group.messages.insert(message.to_owned());
        false
    }

    fn make_room(&mut self, now: Timestamp) {
        self.groups.retain(|_, group| !group.is_over(now));
        if self.groups.len() >= MAX_KEYS
            && let Some(oldest) = self.groups.iter().min_by_key(|(_, group)| group.turn)
        {
            let oldest = oldest.0.clone();
            self.groups.remove(&oldest);
        }
    }
}

// === impl Key ===

impl Key {
    /// What an event has in common with those similar to it.
    pub(crate) fn of(event: &Event) -> Self {
        let object = spam::Key::new(&event.component, &event.involved_object);
        Self { object, kind: event.kind, reason: event.reason.clone() }
    }
}

// === impl Group ===

impl Group {
    fn is_over(&self, now: Timestamp) -> bool {
        Duration::try_from(now.duration_since(self.last)).unwrap_or_default() > INTERVAL
    }
}
