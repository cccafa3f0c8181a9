//! How many pulls run at once, and how often one begins.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Progress, Stage};

/// How long a pull keeps others waiting while nothing is known of its image yet: a registry that does not answer must not
/// hold up the images of all others.
const SILENT: Duration = Duration::from_secs(5);

/// `registryPullQPS` and `registryBurst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many pulls begin in a second; at least one.
    pub per_second: u32,
    /// How many may begin at once after a while without any; at least one.
    pub burst: u32,
}

/// What pulls wait for before they begin. First come, first served.
pub(crate) struct Turns(watch::Sender<Arc<Limits>>);

/// Each limit as it was set, and what is given out by it.
struct Limits {
    at_once: (Option<NonZeroUsize>, Option<Arc<Semaphore>>),
    rate: (Option<Rate>, Option<Arc<Bucket>>),
}

/// A pull's turn, as long as it is held. While it waits for a registry's first answers it may lend it to others.
pub(crate) struct Turn {
    at_once: Option<Arc<Semaphore>>,
    permit: SyncMutex<Option<OwnedSemaphorePermit>>,
}

struct Bucket {
    /// Between two pulls.
    interval: Duration,
    /// How much of that may be had in advance.
    ahead: Duration,
    /// When the bucket is full again.
    full_at: Mutex<Instant>,
}

// === impl Turns ===

impl Turns {
    pub(crate) fn new(at_once: Option<NonZeroUsize>, rate: Option<Rate>) -> Self {
        Self(watch::Sender::new(Arc::new(Limits::new(at_once, rate))))
    }

    /// From now on it is these. Who has a turn keeps it, beside those that are given from now on; a limit that is what it
    /// was goes on counting.
    pub(crate) fn change(&self, at_once: Option<NonZeroUsize>, rate: Option<Rate>) {
        self.0.send_if_modified(|limits| {
            let (same_count, same_rate) = (limits.at_once.0 == at_once, limits.rate.0 == rate);
            if same_count && same_rate {
                return false;
            }
            let mut changed = Limits::new(at_once, rate);
            if same_count {
                changed.at_once = limits.at_once.clone();
            }
            if same_rate {
                changed.rate = limits.rate.clone();
            }
            *limits = Arc::new(changed);
            true
        });
    }

    /// Waits for a turn.
    pub(crate) async fn take(&self) -> Turn {
        let mut limits = self.0.subscribe();
        loop {
            let now = Arc::clone(&limits.borrow_and_update());
            tokio::select! {
                turn = now.take() => return turn,
                // The sender is this.
                _ = limits.changed() => {}
            }
        }
    }
}

// === impl Limits ===

impl Limits {
    fn new(at_once: Option<NonZeroUsize>, rate: Option<Rate>) -> Self {
        let turns = at_once.map(|count| Arc::new(Semaphore::new(count.get().min(Semaphore::MAX_PERMITS))));
        let bucket = rate.map(|rate| {
            let interval = Duration::from_secs(1) / rate.per_second.max(1);
            let ahead = interval.saturating_mul(rate.burst.max(1) - 1);
            Arc::new(Bucket { interval, ahead, full_at: Mutex::new(Instant::now()) })
        });
        Self { at_once: (at_once, turns), rate: (rate, bucket) }
    }

    async fn take(&self) -> Turn {
        let turn = Turn { at_once: self.at_once.1.clone(), permit: SyncMutex::new(None) };
        turn.take_back().await;
        if let Some(bucket) = &self.rate.1 {
            bucket.take().await;
        }
        turn
    }
}

// === impl Turn ===

impl Turn {
    /// Lends it whenever its pull has waited for long to learn what its image is.
    pub(crate) async fn lend(&self, mut progress: watch::Receiver<Progress>) -> Infallible {
        loop {
            match timeout(SILENT, progress.changed()).await {
                Ok(Ok(())) => {}
                // Whoever tells has gone, and the pull with it.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) if progress.borrow().stage == Stage::Resolving => drop(self.permit().take()),
                Err(_) => {}
            }
        }
    }

    /// Waits for it, where it was lent.
    pub(crate) async fn take_back(&self) {
        if self.permit().is_some() {
            return;
        }
        if let Some(at_once) = &self.at_once {
            // It is never closed.
            let permit = Arc::clone(at_once).acquire_owned().await.ok();
            *self.permit() = permit;
        }
    }

    fn permit(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // Every change is one assignment.
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bucket ===

impl Bucket {
    async fn take(&self) {
        // Held while waiting: those behind wait for it. What is given up in between has taken nothing.
        let mut full_at = self.full_at.lock().await;
        if let Some(due) = full_at.checked_sub(self.ahead) {
            sleep_until(due).await;
        }
        *full_at = (*full_at).max(Instant::now()) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    async fn begin_all(turns: &Arc<Turns>, count: usize, takes: Duration) -> Vec<Duration> {
        let from = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..count {
            let turns = Arc::clone(turns);
            tasks.push(tokio::spawn(async move {
                let turn = turns.take().await;
                let began = from.elapsed();
                sleep(takes).await;
                drop(turn);
                began
            }));
        }
        let mut began = Vec::new();
        for task in tasks {
            began.push(task.await.unwrap());
        }
        began.sort();
        began
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_in_the_order_they_came() {
        let turns = Arc::new(Turns::new(NonZeroUsize::new(2), None));
        let began = begin_all(&turns, 5, Duration::from_secs(10)).await;
        assert_eq!(began.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 0, 10, 10, 20]);
        let turns = Arc::new(Turns::new(None, None));
        assert_eq!(begin_all(&turns, 100, Duration::from_secs(10)).await[99], Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_lent_while_a_registry_is_silent_and_taken_back_before_layers_come() {
        let turns = Turns::new(NonZeroUsize::new(1), None);
        let (tell, progress) = watch::channel(Progress { stage: Stage::Resolving, ..Progress::default() });
        let silent = turns.take().await;
        let pull = async {
            sleep(SILENT * 3).await;
            silent.take_back().await;
            tell.send_modify(|progress| progress.stage = Stage::Pulling);
            sleep(SILENT * 3).await;
        };
        let from = Instant::now();
        let others = async {
            let other = turns.take().await;
            let first = from.elapsed();
            sleep(SILENT * 4).await;
            drop(other);
            sleep(Duration::from_millis(1)).await;
            drop(turns.take().await);
            (first, from.elapsed())
        };
        let (first, second) = tokio::select! {
            times = others => times,
            never = silent.lend(progress) => match never {},
            () = async { pull.await; drop(silent.permit().take()); std::future::pending().await } => unreachable!(),
        };
        assert!(first >= SILENT && first < SILENT * 2, "{first:?}");
        // It was taken back once the other had ended, and kept while layers came.
        assert!(second >= SILENT * 8 && second < SILENT * 9, "{second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_by_new_limits() {
        let turns = Arc::new(Turns::new(NonZeroUsize::new(1), None));
        let first = turns.take().await;
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take().await }
        });
        assert!(timeout(Duration::from_secs(5), turns.take()).await.is_err());
        turns.change(NonZeroUsize::new(2), None);
        timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        turns.change(None, Some(Rate { per_second: 1, burst: 1 }));
        let began = begin_all(&turns, 3, Duration::ZERO).await;
        assert_eq!(began.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 1, 2]);
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_stays_goes_on_counting() {
        let rate = Some(Rate { per_second: 1, burst: 2 });
        let turns = Arc::new(Turns::new(NonZeroUsize::new(1), rate));
        let first = turns.take().await;
        turns.change(NonZeroUsize::new(1), rate);
        turns.change(NonZeroUsize::new(1), None);
        assert!(timeout(Duration::from_secs(60), turns.take()).await.is_err(), "one at a time");
        turns.change(NonZeroUsize::new(1), rate);
        drop(first);
        // The burst is had once, however often the number of turns changes.
        let from = Instant::now();
        for count in 2..5 {
            turns.change(NonZeroUsize::new(count), rate);
            drop(turns.take().await);
        }
        assert_eq!(from.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_in_a_second_and_a_burst_before() {
        let turns = Arc::new(Turns::new(None, Some(Rate { per_second: 2, burst: 3 })));
        let began = begin_all(&turns, 5, Duration::ZERO).await;
        let ms = |began: Vec<Duration>| -> Vec<u128> {
            // The clock of tests has a resolution of a millisecond.
            began.iter().map(|at| at.as_millis() / 10 * 10).collect()
        };
        assert_eq!(ms(began), [0, 0, 0, 500, 1000]);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(ms(begin_all(&turns, 4, Duration::ZERO).await), [0, 0, 0, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_has_taken_nothing() {
        let turns = Arc::new(Turns::new(NonZeroUsize::new(1), Some(Rate { per_second: 1, burst: 1 })));
        let turn = turns.take().await;
        assert!(timeout(Duration::from_secs(5), turns.take()).await.is_err());
        drop(turn);
        let from = Instant::now();
        timeout(Duration::from_secs(5), turns.take()).await.unwrap();
        assert!(from.elapsed() < Duration::from_secs(1));
    }
}
