//! Places for layers, of which there are a few for all images.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

/// How long a layer that stands still keeps others waiting: a registry that stops in the midst of layers must not hold up
/// the images of all others.
const STILL: Duration = Duration::from_secs(5);

/// How many may be lent: as many layers more hold their buffers at once, some 3 MiB each.
const LENT: usize = 4;

/// The places there are.
pub(crate) struct Places {
    places: Semaphore,
    lent: Semaphore,
}

/// What a layer is made in.
pub(crate) struct Place<'a> {
    places: &'a Places,
    held: Held<'a>,
}

enum Held<'a> {
    Own {
        _permit: SemaphorePermit<'a>,
    },
    /// Others have it.
    Lent {
        _permit: SemaphorePermit<'a>,
    },
}

// === impl Places ===

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self { places: Semaphore::new(count), lent: Semaphore::new(LENT) }
    }

    /// Waits for one; first come, first served.
    pub(crate) async fn take(&self) -> Place<'_> {
        match self.places.acquire().await {
            Ok(permit) => Place { places: self, held: Held::Own { _permit: permit } },
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// Holds it for a layer, of which `moved` tells that something has come. While nothing does, whatever it waits for,
    /// the place is others', unless too many are lent already.
    ///
    /// **Invariant:** whoever had a place once never waits for one again, for others may wait for what it makes. It has
    /// another when one is free.
    pub(crate) async fn lend(mut self, mut moved: watch::Receiver<()>) -> Infallible {
        loop {
            match timeout(STILL, moved.changed()).await {
                Ok(Ok(())) => self.take_back(),
                // Whoever tells has gone, and the layer with it.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => self.give(),
            }
        }
    }

    fn take_back(&mut self) {
        if let (Held::Lent { .. }, Ok(permit)) = (&self.held, self.places.places.try_acquire()) {
            self.held = Held::Own { _permit: permit };
        }
    }

    fn give(&mut self) {
        if let (Held::Own { .. }, Ok(permit)) = (&self.held, self.places.lent.try_acquire()) {
            self.held = Held::Lent { _permit: permit };
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn is_free(places: &Places) -> bool {
        timeout(Duration::from_millis(1), places.take()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_lent_than_there_is_memory_for() {
        let places = Places::new(LENT + 1);
        let moved = watch::Sender::new(());
        let mut still = Vec::new();
        for _ in 0..=LENT {
            still.push(Box::pin(places.take().await.lend(moved.subscribe())));
        }
        let course = async {
            sleep(STILL * 3).await;
            assert_eq!((places.places.available_permits(), places.lent.available_permits()), (LENT, 0));
            moved.send_replace(());
            sleep(STILL / 10).await;
            assert_eq!((places.places.available_permits(), places.lent.available_permits()), (0, LENT));
        };
        tokio::select! {
            () = course => {}
            (never, ..) = futures_util::future::select_all(still) => match never {},
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_lent_while_nothing_comes_and_taken_back_when_one_is_free() {
        let places = Places::new(1);
        let place = places.take().await;
        let moved = watch::Sender::new(());
        let told = moved.subscribe();
        let course = async {
            for _ in 0..5 {
                sleep(STILL * 9 / 10).await;
                assert!(!is_free(&places).await, "something came in time");
                moved.send_replace(());
            }
            sleep(STILL * 11 / 10).await;
            let other = places.take().await;
            // Nobody is kept from going on, and the place is not taken from whoever has it.
            moved.send_replace(());
            sleep(STILL / 10).await;
            assert!(!is_free(&places).await);
            drop(other);
            moved.send_replace(());
            sleep(STILL / 10).await;
            assert!(!is_free(&places).await, "it was not taken back");
        };
        tokio::select! {
            () = course => {}
            never = place.lend(told) => match never {},
        }
        assert!(is_free(&places).await, "it ends with its layer");
    }
}
