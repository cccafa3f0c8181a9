//! How much of one object is shown: client-go's `EventSourceObjectSpamFilter`.

use std::collections::HashMap;
use std::time::Duration;

use coracle_model::ObjectReference;
use jiff::Timestamp;

/// So many events of an object are shown at once.
const BURST: u32 = 25;
/// After that, one in this time.
const REFILL: Duration = Duration::from_secs(5 * 60);
/// The most objects that are remembered: client-go's cache has as many.
const MAX_OBJECTS: usize = 4096;
/// So few are no trouble, however full.
const FEW_OBJECTS: usize = 64;

/// A token bucket for every source and object.
#[derive(Debug, Default)]
pub(crate) struct SpamFilter {
    buckets: HashMap<Key, Bucket>,
    /// Counts the uses, to tell which bucket was used longest ago.
    turn: u64,
    /// With so many, those that are full are forgotten.
    sweep_at: usize,
}

/// Who tells it, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) component: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// What has flowed in and was not taken: an event takes [`REFILL`].
    credit: Duration,
    at: Timestamp,
    turn: u64,
}

// === impl SpamFilter ===

impl SpamFilter {
    /// Whether one more event of the object may be shown now.
    pub(crate) fn admit(&mut self, key: Key, now: Timestamp) -> bool {
        if self.buckets.len() >= self.sweep_at && !self.buckets.contains_key(&key) {
            self.make_room(now);
        }
        self.turn += 1;
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket::full(now));
        *bucket = Bucket { turn: self.turn, ..bucket.filled(now) };
        match bucket.credit.checked_sub(REFILL) {
            Some(left) => {
                bucket.credit = left;
                true
            }
            None => false,
        }
    }

    /// Forgets what a new bucket would be no different from, and if there are too many all the same, what was used
    /// longest ago.
    fn make_room(&mut self, now: Timestamp) {
        self.buckets.retain(|_, bucket| bucket.filled(now).credit < Bucket::full(now).credit);
        if self.buckets.len() >= MAX_OBJECTS
            && let Some(oldest) = self.buckets.iter().min_by_key(|(_, bucket)| bucket.turn)
        {
            let oldest = oldest.0.clone();
            self.buckets.remove(&oldest);
        }
        // What is left has to double before it is looked through again: on the whole that costs nothing.
        self.sweep_at = (2 * self.buckets.len()).clamp(FEW_OBJECTS, MAX_OBJECTS);
    }
}

// === impl Key ===

impl Key {
    /// The source and the object, whatever part of it.
    pub(crate) fn new(component: &str, object: &ObjectReference) -> Self {
        Self {
            component: component.to_owned(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            uid: object.uid.clone(),
        }
    }
}

// === impl Bucket ===

impl Bucket {
    fn full(now: Timestamp) -> Self {
        Self { credit: REFILL * BURST, at: now, turn: 0 }
    }

    /// With what has flowed in since. A clock that was set back fills nothing.
    fn filled(self, now: Timestamp) -> Self {
        let passed = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        let credit = self.credit.saturating_add(passed).min(Self::full(now).credit);
        Self { credit, at: now, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        let text = str::to_owned;
        Key { component: text("c"), kind: text("Pod"), namespace: None, name: text(name), uid: text("u") }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_burst_and_then_one_in_five_minutes() {
        let mut filter = SpamFilter::default();
        let mut admitted = |name: &str, second| filter.admit(key(name), at(second));
        assert!((0..25).all(|_| admitted("a", 0)));
        for (second, expected) in
            [(0, false), (299, false), (300, true), (301, false), (600, true), (1200, true), (1200, true)]
        {
            assert_eq!(admitted("a", second), expected, "after {second} s");
        }
        assert!(!admitted("a", 1200));
        assert!(admitted("b", 1200), "another object has its own");
        assert!(!admitted("a", 0), "a clock that was set back fills nothing");
        assert!(!admitted("a", 299));
        assert!(
            (0..25).all(|_| admitted("a", 100_000)) && !admitted("a", 100_000),
            "never more than a burst"
        );
    }

    #[test]
    fn memory_is_bounded_and_the_busy_are_not_forgotten() {
        let mut filter = SpamFilter::default();
        for _ in 0..25 {
            filter.admit(key("busy"), at(0));
        }
        for number in 0..MAX_OBJECTS + 100 {
            assert!(filter.admit(key(&number.to_string()), at(1)));
            assert!(!filter.admit(key("busy"), at(1)));
            assert!(filter.buckets.len() <= MAX_OBJECTS);
        }
    }
}
