//! Work that serves all who want the same at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What one piece of work is, to those who wait for it.
type Work<T> = Shared<BoxFuture<'static, T>>;

/// Pieces of work under way, by what they are for.
///
/// **Invariant:** a piece of work goes on by itself, whoever asks how it is, and ends when the last who waits for it has
/// gone. One that has ended serves nobody who comes later.
pub(crate) struct Flights<K, T: Clone, P> {
    under_way: Mutex<HashMap<K, UnderWay<T, P>>>,
}

struct UnderWay<T: Clone, P> {
    work: WeakShared<BoxFuture<'static, T>>,
    progress: watch::Receiver<P>,
}

/// A share in a piece of work. Dropping it is to want it no more.
pub(crate) struct Share<T: Clone, P> {
    work: Work<T>,
    progress: watch::Receiver<P>,
}

// === impl Flights ===

impl<K, T, P> Flights<K, T, P>
where
    K: Eq + Hash,
    T: Clone + Send + Sync + 'static,
    P: Default + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::default() }
    }

    /// Joins the work for `key`, or begins it with `begin`. Where it panics its result is `failed`'s.
    pub(crate) fn join<F>(
        &self,
        key: K,
        begin: impl FnOnce(watch::Sender<P>) -> F,
        failed: fn(String) -> T,
    ) -> Share<T, P>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.lock();
        if let Some(found) = under_way.get(&key)
            && let Some(work) = found.work.upgrade()
            // What has ended is not what is asked for now.
            && work.peek().is_none()
        {
            return Share { work, progress: found.progress.clone() };
        }
        under_way.retain(|_, other| other.work.upgrade().is_some_and(|work| work.peek().is_none()));
        let (tell, progress) = watch::channel(P::default());
        let task = AbortOnDropHandle::new(tokio::spawn(begin(tell)));
        let work = async move { task.await.unwrap_or_else(|error| failed(error.to_string())) };
        let work = work.boxed().shared();
        if let Some(weak) = work.downgrade() {
            under_way.insert(key, UnderWay { work: weak, progress: progress.clone() });
        }
        Share { work, progress }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, UnderWay<T, P>>> {
        // Every change is one call of the map's.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Share ===

impl<T: Clone + Send + Sync + 'static, P> Share<T, P> {
    /// How far it is.
    pub(crate) fn progress(&self) -> watch::Receiver<P> {
        self.progress.clone()
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> T {
        self.work.await
    }
}

/// For errors that all who wait are told.
pub(crate) type Told<T, E> = Result<T, Arc<E>>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl Count {
        fn add(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    struct OnDrop(Count);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.add();
        }
    }

    fn ten_seconds(begun: &Count, ended: &Count, result: u32) -> impl Future<Output = u32> + use<> {
        begun.add();
        let ended = OnDrop(ended.clone());
        async move {
            sleep(Duration::from_secs(10)).await;
            drop(ended);
            result
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_want_the_same_are_served_by_one() {
        let flights = Flights::<&str, u32, ()>::new();
        let (begun, ended) = (Count::default(), Count::default());
        let from = Instant::now();
        let shares: Vec<_> =
            (0..50).map(|_| flights.join("a", |_| ten_seconds(&begun, &ended, 7), |_| 0)).collect();
        let other = flights.join("b", |_| ten_seconds(&begun, &ended, 8), |_| 0);
        for share in shares {
            assert_eq!(share.ended().await, 7);
        }
        assert_eq!(other.ended().await, 8);
        assert_eq!((begun.get(), from.elapsed()), (2, Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_last_who_waits_and_not_before() {
        let flights = Flights::<&str, u32, ()>::new();
        let (begun, ended) = (Count::default(), Count::default());
        let mut shares: Vec<_> =
            (0..3).map(|_| flights.join("a", |_| ten_seconds(&begun, &ended, 7), |_| 0)).collect();
        let last = shares.pop().unwrap();
        for share in shares {
            assert!(timeout(Duration::from_secs(1), share.ended()).await.is_err());
        }
        assert_eq!(ended.get(), 0);
        drop(last);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(ended.get(), 1, "it was given up");
        // Whoever comes now begins anew.
        let again = flights.join("a", |_| ten_seconds(&begun, &ended, 9), |_| 0);
        assert_eq!((again.ended().await, begun.get()), (9, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_serves_nobody_who_comes_later() {
        let flights = Flights::<&str, u32, ()>::new();
        let (begun, ended) = (Count::default(), Count::default());
        let first = flights.join("a", |_| ten_seconds(&begun, &ended, 1), |_| 0);
        let held = Share { work: first.work.clone(), progress: first.progress.clone() };
        assert_eq!(first.ended().await, 1);
        let second = flights.join("a", |_| ten_seconds(&begun, &ended, 2), |_| 0);
        assert_eq!(second.ended().await, 2);
        assert_eq!(held.ended().await, 1);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_no_hang() {
        let flights = Flights::<&str, u32, ()>::new();
        let share = flights.join("a", |_| async { panic!("on purpose") }, |_| 42);
        assert_eq!(share.ended().await, 42);
    }
}
