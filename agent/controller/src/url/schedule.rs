//! When an address is asked again: a function of how it has answered.

use std::time::Duration;

use coracle_fetch::{Answer, Error};

/// However often it fails, it is asked every so often; unless it is to be asked more seldom.
const LONGEST: Duration = Duration::from_secs(300);
/// A server that asks for more than this is broken rather than busy.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(3600);
/// The most a wait is lengthened by chance, as a share of it: nodes that lost one server together do not come back
/// to it together.
const JITTER: f64 = 0.25;

/// How long to wait between two questions. Never shorter than what is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    frequency: Duration,
    /// In a row.
    failures: u32,
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn new(frequency: Duration) -> Self {
        Self { frequency, failures: 0 }
    }

    /// How long to wait after an answer. `chance` is from 0 up to 1.
    pub(super) fn next(&mut self, answer: &Result<Answer, Error>, chance: f64) -> Duration {
        match answer {
            Ok(_) => self.after(None, chance),
            Err(error) => self.after(Some(error.retry_after()), chance),
        }
    }

    /// `failure` is that it has failed, and for how long the server asks to be left alone.
    fn after(&mut self, failure: Option<Option<Duration>>, chance: f64) -> Duration {
        let Some(asked_for) = failure else {
            self.failures = 0;
            return self.frequency;
        };
        let doubled = 2_u32.checked_pow(self.failures).and_then(|times| self.frequency.checked_mul(times));
        let doubled = doubled.unwrap_or(LONGEST).min(LONGEST).max(self.frequency);
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.max(asked_for.unwrap_or_default().min(LONGEST_ASKED_FOR));
        wait + wait.mul_f64(chance.clamp(0.0, 1.0) * JITTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits, in seconds, after a series of answers: `true` is one, `false` is none.
    fn waits(frequency: u64, answers: &[bool], chance: f64) -> Vec<u64> {
        let mut schedule = Schedule::new(Duration::from_secs(frequency));
        answers.iter().map(|good| schedule.after((!good).then_some(None), chance).as_secs()).collect()
    }

    #[test]
    fn failures_are_asked_for_again_ever_more_seldom() {
        let failing = [false; 8];
        for (frequency, answers, expected) in [
            (20, &[true, true, true][..], &[20, 20, 20][..]),
            (20, &failing, &[20, 40, 80, 160, 300, 300, 300, 300]),
            (20, &[false, false, true, false], &[20, 40, 20, 20]),
            (1, &failing, &[1, 2, 4, 8, 16, 32, 64, 128]),
            (600, &[false, false, true], &[600, 600, 600]),
        ] {
            assert_eq!(waits(frequency, answers, 0.0), expected);
        }
        assert_eq!(waits(20, &[true, false, false], 1.0), [20, 25, 50], "chance lengthens failures alone");
        assert_eq!(waits(20, &[false; 40], 0.0)[39], 300);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_reason() {
        for (frequency, asked_for, expected) in
            [(20, 5, 20), (20, 120, 120), (20, u64::MAX, 3600), (7200, 3600, 7200)]
        {
            let mut schedule = Schedule::new(Duration::from_secs(frequency));
            let wait = schedule.after(Some(Some(Duration::from_secs(asked_for))), 0.0);
            assert_eq!(wait.as_secs(), expected, "{frequency} {asked_for}");
        }
    }
}
