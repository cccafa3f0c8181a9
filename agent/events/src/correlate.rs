//! What becomes of an event that is told: a function of what was told before, and of the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use coracle_model::{Event, EventType, ObjectReference};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::similar::{self, Similar};
use crate::spam::{self, SpamFilter};
use crate::{MAX_EVENTS, MAX_MESSAGE, TTL};

/// In front of the message of events that were combined.
const COMBINED: &str = "(combined from similar events): ";
/// Behind a message that was cut.
const CUT: &str = "...";

/// Something that happened now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// What it happened to.
    pub object: ObjectReference,
    /// Whether somebody may have to act.
    pub kind: EventType,
    /// CamelCase, such as `Started` or `BackOff`.
    pub reason: String,
    /// For people. What is longer than [`MAX_MESSAGE`] is cut.
    pub message: String,
    /// Which program says so.
    pub component: String,
}

/// An event as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) event: Event,
    /// It is what several similar events were combined to.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) combined: bool,
}

/// What [`Kept`] has beside the event.
#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    combined: bool,
}

/// The events there are, in order of their last occurrence.
#[derive(Debug, Default)]
pub(crate) struct Correlator {
    entries: VecDeque<Entry>,
    similar: Similar,
    spam: SpamFilter,
    version: u64,
}

/// An event, and what of it is not shown.
#[derive(Debug)]
struct Entry {
    /// As it is shown; with a count of 0, it is not.
    event: Arc<Event>,
    combined: bool,
    /// When it happened last, shown or not.
    last: Timestamp,
    /// How often it happened since it was shown last.
    unseen: u32,
}

// === impl Kept ===

impl Kept {
    /// Reads it twice, which costs less than serde's `flatten`: that keeps all fields until it knows whose they are.
    pub(crate) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let event = serde_json::from_slice(json)?;
        let Beside { combined } = serde_json::from_slice(json)?;
        Ok(Self { event, combined })
    }
}

// === impl Correlator ===

impl Correlator {
    /// The events that an agent before this one has kept, in the order in which it wrote them; of one name, the
    /// last is what it is.
    pub(crate) fn restore(kept: Vec<Kept>, now: Timestamp) -> Self {
        let mut latest: BTreeMap<String, Kept> = BTreeMap::new();
        for one in kept {
            latest.insert(one.event.name.clone(), one);
        }
        let mut all: Vec<Kept> = latest.into_values().collect();
        all.sort_by_key(|one| (one.event.last_timestamp, one.event.version));
        let version = all.iter().map(|one| one.event.version).max().unwrap_or_default();
        let mut restored = Self { version, ..Self::default() };
        for Kept { event, combined } in all {
            let last = event.last_timestamp;
            if event.count == 0 || is_over(last, now) {
                continue;
            }
            restored.similar.combines(similar::Key::of(&event), &event.message, last);
            restored.push(Entry { event: Arc::new(event), combined, last, unseen: 0 });
        }
        restored
    }

    /// Takes in that something happened. The event as it is shown from now on; `None` when nothing changes,
    /// because too much happened to this object already.
    pub(crate) fn tell(&mut self, told: Occurrence, now: Timestamp) -> Option<Arc<Event>> {
        self.entries.retain(|entry| !is_over(entry.last, now));
        let Occurrence { object, kind, reason, mut message, component } = told;
        cut(&mut message);
        let of_object = spam::Key::new(&component, &object);
        let group = similar::Key { object: of_object.clone(), kind, reason: reason.clone() };
        let combined = self.similar.combines(group, &message, now);
        if combined {
            message.insert_str(0, COMBINED);
            cut(&mut message);
        }
        let same = |entry: &Entry| {
            let event = &entry.event;
            event.reason == reason
                && event.kind == kind
                && event.component == component
                && entry.combined == combined
                // What was combined has the latest message, and is about no part in particular.
                && match combined {
                    true => is_same_object(&event.involved_object, &object),
                    false => event.message == message && event.involved_object == object,
                }
        };
        let known = self.entries.iter().position(same).and_then(|place| self.entries.remove(place));
        let mut entry = known.unwrap_or_else(|| Entry {
            event: Arc::new(Event {
                name: name(&self.entries, &object.name, now),
                involved_object: object.clone(),
                kind,
                reason,
                message: message.clone(),
                component,
                count: 0,
                first_timestamp: now,
                last_timestamp: now,
                version: 0,
            }),
            combined,
            last: now,
            unseen: 0,
        });
        entry.last = now;
        entry.unseen = entry.unseen.saturating_add(1);
        let shown = self.spam.admit(of_object, now).then(|| {
            self.version += 1;
            // Whoever was shown it before keeps what they saw.
            let event = Arc::make_mut(&mut entry.event);
            event.count = event.count.saturating_add(std::mem::take(&mut entry.unseen));
            (event.message, event.involved_object) = (message, object);
            (event.last_timestamp, event.version) = (now, self.version);
            Arc::clone(&entry.event)
        });
        self.push(entry);
        shown
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() >= MAX_EVENTS {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// What is shown now, the event that happened last at the end.
    pub(crate) fn events(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Event>> {
        self.shown(now).map(|entry| &entry.event)
    }

    /// What is to be kept on disk, of versions greater than that: with 0, all of it.
    pub(crate) fn kept(&self, after: u64, now: Timestamp) -> Vec<Kept> {
        let shown = self.shown(now).filter(|entry| entry.event.version > after);
        shown.map(|entry| Kept { event: Event::clone(&entry.event), combined: entry.combined }).collect()
    }

    /// The greatest version of any event there was.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn shown(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.event.count > 0 && !is_over(entry.last, now))
    }
}

/// A name as client-go makes it; of two events in one nanosecond, the second counts on.
fn name(entries: &VecDeque<Entry>, object: &str, now: Timestamp) -> String {
    let mut number = now.as_nanosecond();
    loop {
        let name = format!("{object}.{number:x}");
        if entries.iter().all(|entry| entry.event.name != name) {
            return name;
        }
        number += 1;
    }
}

fn is_same_object(one: &ObjectReference, other: &ObjectReference) -> bool {
    one.uid == other.uid
        && one.name == other.name
        && one.namespace == other.namespace
        && one.kind == other.kind
}

/// Whether it happened too long ago, or as long in the future, by a clock that was wrong.
fn is_over(last: Timestamp, now: Timestamp) -> bool {
    now.duration_since(last).unsigned_abs() > TTL
}

/// Cuts a message to [`MAX_MESSAGE`], between two characters.
fn cut(message: &mut String) {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - CUT.len()));
        message.push_str(CUT);
    }
}

#[cfg(test)]
mod tests;
