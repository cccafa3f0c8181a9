//! Memory for decompressing, which all layers that are unpacked at once share.
//!
//! There is some for those who may wait for the layers below theirs, and some for those who wait for no layer any more.
//! **Invariant:** nobody waits for ever. Who waits for memory waits for the second kind alone, and they come to their end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What windows may have of those who may wait for other layers; what they cannot have at once they do not wait for.
const AT_ONCE: u64 = 8 << 20;

/// What windows may have of those who do not: the largest there is.
const SETTLED: u64 = 32 << 20;

/// The memory for windows, of which a process has one.
pub(super) static WINDOWS: Windows = Windows::new();

/// Memory that is shared.
#[derive(Debug)]
pub(super) struct Windows {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is taken.
#[derive(Debug)]
struct State {
    at_once: u64,
    settled: u64,
    /// Turns of those who wait: the next to be given out, and whose it is. Who wants little would else keep who wants all
    /// waiting for as long as others come.
    next: u64,
    turn: u64,
}

/// Memory for one window, for as long as it lives.
#[derive(Debug)]
pub(super) struct Window<'a> {
    windows: &'a Windows,
    bytes: u64,
    is_settled: bool,
}

// === impl Windows ===

impl Windows {
    const fn new() -> Self {
        let state = State { at_once: 0, settled: 0, next: 0, turn: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes memory for a window of at most 32 MiB. Where there is none at once, `settle` comes first: who waits for it must
    /// not have to wait for other layers any more.
    pub(super) fn take<E>(
        &self,
        bytes: u64,
        settle: impl FnOnce() -> Result<(), E>,
    ) -> Result<Window<'_>, E> {
        let bytes = bytes.min(SETTLED);
        let mut state = self.lock();
        if state.at_once + bytes <= AT_ONCE {
            state.at_once += bytes;
            return Ok(Window { windows: self, bytes, is_settled: false });
        }
        drop(state);
        settle()?;
        state = self.lock();
        let turn = state.next;
        state.next += 1;
        while state.turn != turn || state.settled + bytes > SETTLED {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.settled += bytes;
        drop(state);
        // There may be some left for the next.
        self.changed.notify_all();
        Ok(Window { windows: self, bytes, is_settled: true })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one addition.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let mut state = self.windows.lock();
        match self.is_settled {
            true => state.settled -= self.bytes,
            false => state.at_once -= self.bytes,
        }
        drop(state);
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

    fn settled(windows: &Windows, bytes: u64) -> Window<'_> {
        windows.take(bytes, || Ok::<_, Infallible>(())).unwrap()
    }

    #[test]
    fn who_waits_for_a_layer_keeps_nobody_waiting_however_much_that_wants() {
        let windows = Windows::new();
        // As the layer above one whose window is as large as can be.
        let above = at_once(&windows);
        assert!(windows.take(COMMON, || Err(())).is_err(), "first it has to wait for those below");
        thread::scope(|scope| {
            let (told, tells) = channel();
            let windows = &windows;
            scope.spawn(move || {
                drop(settled(windows, SETTLED));
                told.send(()).unwrap();
            });
            tells.recv_timeout(Duration::from_secs(20)).expect("the lowest layer gets its memory");
        });
        drop(above);
        let left = windows.lock();
        assert_eq!((left.at_once, left.settled), (0, 0));
    }

    #[test]
    fn who_wants_all_comes_to_its_turn_though_others_come() {
        let windows = Windows::new();
        let above = at_once(&windows);
        let below = settled(&windows, COMMON);
        thread::scope(|scope| {
            let (told, tells) = channel();
            let (windows, first) = (&windows, told.clone());
            scope.spawn(move || {
                let window = settled(windows, SETTLED);
                first.send("large").unwrap();
                drop(window);
            });
            while windows.lock().next < 2 {
                thread::yield_now();
            }
            scope.spawn(move || {
                let window = settled(windows, COMMON);
                told.send("small").unwrap();
                drop(window);
            });
            while windows.lock().next < 3 {
                thread::yield_now();
            }
            assert!(tells.try_recv().is_err(), "who came later does not go before it");
            drop(below);
            let order =
                [tells.recv_timeout(Duration::from_secs(20)), tells.recv_timeout(Duration::from_secs(20))];
            assert_eq!(order, [Ok("large"), Ok("small")]);
        });
        drop(above);
        drop(at_once(&windows));
    }
}
