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
/// So few are no trouble, whatever their age.
const FEW_KEYS: usize = 64;

/// The messages of similar events: of one source, object, type and reason.
#[derive(Debug, Default)]
pub(crate) struct Similar {
    groups: HashMap<Key, Group>,
    turn: u64,
    /// With so many, those that are over are forgotten.
    sweep_at: usize,
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
        if self.groups.len() >= self.sweep_at && !self.groups.contains_key(&key) {
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

    /// Forgets what a new group would be no different from, and if there are too many all the same, what was told
    /// longest ago.
    fn make_room(&mut self, now: Timestamp) {
        self.groups.retain(|_, group| !group.is_over(now));
        if self.groups.len() >= MAX_KEYS
            && let Some(oldest) = self.groups.iter().min_by_key(|(_, group)| group.turn)
        {
            let oldest = oldest.0.clone();
            self.groups.remove(&oldest);
        }
        // What is left has to double before it is looked through again: on the whole that costs nothing.
        self.sweep_at = (2 * self.groups.len()).clamp(FEW_KEYS, MAX_KEYS);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: usize) -> Key {
        let text = str::to_owned;
        let object = spam::Key {
            component: text("c"),
            kind: text("Pod"),
            namespace: None,
            name: name.to_string(),
            uid: text("u"),
        };
        Key { object, kind: EventType::Normal, reason: text("Started") }
    }

    #[test]
    fn what_is_over_is_forgotten_long_before_there_is_no_room() {
        let mut similar = Similar::default();
        let mut now = Timestamp::UNIX_EPOCH;
        for name in 0..2000 {
            similar.combines(key(name), "started", now);
            now += Duration::from_secs(30);
        }
        assert!(similar.groups.len() <= 2 * FEW_KEYS, "{} of the last ten minutes' 20", similar.groups.len());
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let mut similar = Similar::default();
        for name in 0..MAX_KEYS + 100 {
            similar.combines(key(name), "started", Timestamp::UNIX_EPOCH);
        }
        assert_eq!(similar.groups.len(), MAX_KEYS);
        assert!(similar.groups.contains_key(&key(MAX_KEYS + 99)) && !similar.groups.contains_key(&key(0)));
    }
}
