//! When a probe is run.

use std::time::Duration;

use tokio::time::Instant;

/// A fixed beat: its ticks are a period apart from the first to the last, however late one is acted on.
///
/// It is acted on one tick at a time. Of the ticks that pass while a probe runs, one is made up for at once
/// and the others are dropped, as with Go's `Ticker`: a target that takes longer than the period is asked
/// again immediately, and one that recovers is asked on the old beat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The first tick not acted on.
    next: Instant,
    period: Duration,
}

// === impl Beat ===

impl Beat {
    /// A beat that begins at `first`. A period of zero, which no probe has, counts as the shortest there is.
    pub fn new(first: Instant, period: Duration) -> Self {
        Self { next: first, period: period.max(Duration::from_millis(1)) }
    }

    /// When to act next, seen from `now`: at the next tick, or at once when one has passed. That tick, and
    /// whatever has passed with it, counts as acted on.
    pub fn next(&mut self, now: Instant) -> Instant {
        let due = self.next.max(now);
        self.next = self.first_after(due);
        due
    }

    /// Drops the ticks before `now`: nobody wanted to act on them.
    pub fn skip_to(&mut self, now: Instant) {
        if self.next < now {
            self.next = self.first_after(now);
        }
    }

    /// The first tick after an instant.
    fn first_after(&self, instant: Instant) -> Instant {
        let passed = instant.saturating_duration_since(self.next);
        if self.next > instant {
            return self.next;
        }
        let into = passed.as_nanos() % self.period.as_nanos();
        // Less than a period, so it fits.
        instant + (self.period - Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// The times, in seconds after the first tick, at which something is acted on that takes as long as
    /// `takes` says, one after another.
    fn acts(period: f64, takes: &[f64]) -> Vec<f64> {
        let start = Instant::now();
        let mut beat = Beat::new(start, seconds(period));
        let mut now = start;
        takes
            .iter()
            .map(|took| {
                let due = beat.next(now);
                now = due + seconds(*took);
                (due - start).as_secs_f64()
            })
            .collect()
    }

    #[test]
    fn the_beat_of_a_quick_probe_is_the_period() {
        assert_eq!(acts(2.0, &[0.1, 1.9, 0.0, 0.5]), [0.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn a_probe_slower_than_its_period_is_run_again_at_once_and_finds_its_beat_again() {
        assert_eq!(acts(1.0, &[2.5, 0.0, 0.0, 0.0]), [0.0, 2.5, 3.0, 4.0]);
        // One that always takes one and a half: none waits for a tick.
        assert_eq!(acts(1.0, &[1.5, 1.5, 1.5]), [0.0, 1.5, 3.0]);
        // Exactly a period is no delay.
        assert_eq!(acts(1.0, &[1.0, 1.0, 1.0]), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_late_start_runs_at_once_and_then_on_the_beat() {
        let start = Instant::now();
        let mut beat = Beat::new(start, seconds(10.0));
        let late = start + seconds(25.0);
        assert_eq!(beat.next(late), late);
        assert_eq!(beat.next(late), start + seconds(30.0));
    }

    #[test]
    fn what_passed_while_nobody_acted_is_dropped() {
        let start = Instant::now();
        let mut beat = Beat::new(start, seconds(10.0));
        beat.skip_to(start + seconds(25.0));
        assert_eq!(beat.next(start + seconds(25.0)), start + seconds(30.0));
        let mut beat = Beat::new(start, seconds(10.0));
        beat.skip_to(start);
        assert_eq!(beat.next(start), start, "a tick that is now has not passed");
    }

    #[test]
    fn years_do_not_make_it_drift() {
        let start = Instant::now();
        let mut beat = Beat::new(start, seconds(1.0));
        let day = 24 * 60 * 60;
        for today in 0..400_u64 {
            let noon = start + Duration::from_secs(today * day + day / 2) + Duration::from_millis(300);
            beat.next(noon);
            let after = beat.next(noon);
            assert_eq!((after - start).subsec_nanos(), 0);
            assert!(after > noon && after - noon < seconds(1.0));
        }
    }
}
