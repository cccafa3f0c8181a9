//! Memory for decompressing, which all layers that are unpacked at once share.
//!
//! **Invariant:** nobody waits for ever. Who has memory may wait for the layers below, so those are never kept from
//! theirs for good: without waiting, only part of it is to be had, and who waits for the rest waits for no other layer.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What all windows together may have.
const ALL: u64 = 32 << 20;

/// What is given away to those who may wait for other layers.
const AT_ONCE: u64 = 24 << 20;

/// The memory for windows, of which a process has one.
pub(super) static WINDOWS: Windows = Windows::new();

/// Memory that is shared.
#[derive(Debug)]
pub(super) struct Windows {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    taken: u64,
    /// How many wait for more than is given away at once: they would wait for ever if others still came first.
    large: usize,
}

/// Memory for one window, for as long as it lives.
#[derive(Debug)]
pub(super) struct Window<'a> {
    windows: &'a Windows,
    bytes: u64,
}

// === impl Windows ===

impl Windows {
    const fn new() -> Self {
        Self { state: Mutex::new(State { taken: 0, large: 0 }), changed: Condvar::new() }
    }

    /// Takes memory for a window of at most 32 MiB. Where it has to be waited for, `settle` comes first: who waits must
    /// not have to wait for other layers afterwards.
    pub(super) fn take<E>(
        &self,
        bytes: u64,
        settle: impl FnOnce() -> Result<(), E>,
    ) -> Result<Window<'_>, E> {
        let bytes = bytes.min(ALL);
        let mut state = self.lock();
        let is_large = bytes > ALL - AT_ONCE;
        if !is_large && state.large == 0 && state.taken + bytes <= AT_ONCE {
            state.taken += bytes;
            return Ok(Window { windows: self, bytes });
        }
        drop(state);
        settle()?;
        state = self.lock();
        state.large += usize::from(is_large);
        while state.taken + bytes > ALL {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.large -= usize::from(is_large);
        state.taken += bytes;
        Ok(Window { windows: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one addition.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.windows.lock().taken -= self.bytes;
        self.windows.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const COMMON: u64 = 8 << 20;

    fn at_once(windows: &Windows) -> Window<'_> {
        windows.take(COMMON, || Err(())).expect("there is some without waiting")
    }

    #[test]
    fn part_of_it_is_kept_for_those_who_wait_for_nobody() {
        let windows = Windows::new();
        let all: Vec<_> = (0..3).map(|_| at_once(&windows)).collect();
        assert!(windows.take(COMMON, || Err(())).is_err(), "first it has to wait for those below");
        let last = windows.take(COMMON, || Ok::<_, Infallible>(())).unwrap();
        let (told, tells) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let window = windows.take(COMMON, || Ok::<_, Infallible>(())).unwrap();
                told.send(()).unwrap();
                drop(window);
            });
            assert!(tells.recv_timeout(Duration::from_millis(100)).is_err(), "there is none left");
            drop(last);
            tells.recv_timeout(Duration::from_secs(20)).unwrap();
        });
        drop(all);
        assert_eq!(windows.lock().taken, 0);
    }

    #[test]
    fn a_large_one_comes_to_its_turn_though_others_come() {
        let windows = Windows::new();
        let small = at_once(&windows);
        assert!(windows.take(ALL, || Err(())).is_err());
        thread::scope(|scope| {
            let large = scope.spawn(|| drop(windows.take(ALL, || Ok::<_, Infallible>(())).unwrap()));
            while windows.lock().large == 0 {
                thread::yield_now();
            }
            assert!(windows.take(COMMON, || Err(())).is_err(), "nobody is served before it without need");
            // But those are whom others wait for.
            drop(windows.take(COMMON, || Ok::<_, Infallible>(())).unwrap());
            drop(small);
            large.join().unwrap();
        });
        drop(at_once(&windows));
    }
}
