//! What happened to a pod, for people: Kubernetes' events, kept in memory.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

/// How many distinct events are kept of one pod.
const CAPACITY: usize = 32;

/// Something that happened to a pod, with how often and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub kind: EventType,
    /// CamelCase, such as `Started` or `BackOff`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The container it is about; `None` when it is about the pod.
    pub container: Option<String>,
    /// How often it happened.
    pub count: u32,
    /// When it happened first.
    pub first_seen: Timestamp,
    /// When it happened last.
    pub last_seen: Timestamp,
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something went wrong.
    Warning,
}

/// The latest events of one pod. A repeated event is counted, not stored again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(VecDeque<Event>);

// === impl EventType ===

impl EventType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

// === impl Events ===

impl Events {
    /// Notes that something happened now.
    pub fn record(
        &mut self,
        now: Timestamp,
        kind: EventType,
        reason: &'static str,
        container: Option<&str>,
        message: String,
    ) {
        let same = |event: &Event| {
            event.reason == reason && event.message == message && event.container.as_deref() == container
        };
        // The repeated event moves to the end: what is dropped is what happened longest ago.
        let event = match self.0.iter().position(same).and_then(|place| self.0.remove(place)) {
            Some(event) => Event { count: event.count.saturating_add(1), last_seen: now, ..event },
            None => Event {
                kind,
                reason,
                message,
                container: container.map(str::to_owned),
                count: 1,
                first_seen: now,
                last_seen: now,
            },
        };
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// The events, the one that happened last at the end.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_event_is_counted_and_the_ring_is_bounded() {
        let mut events = Events::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for second in 0..100 {
            events.record(
                at(second),
                EventType::Warning,
                "BackOff",
                Some("web"),
                "Back-off restarting".to_owned(),
            );
            events.record(at(second), EventType::Normal, "Created", Some("web"), format!("number {second}"));
        }
        assert_eq!(events.iter().len(), CAPACITY);
        let back_off = events.iter().find(|event| event.reason == "BackOff").unwrap();
        assert_eq!((back_off.count, back_off.first_seen, back_off.last_seen), (100, at(0), at(99)));
    }
}
