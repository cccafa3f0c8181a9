//! Waiting for a condition, never for time to pass.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long a quiet machine may take for what takes it milliseconds. Generous, because a loaded one takes longer;
/// a test that passes never waits this long.
pub const SOON: Duration = Duration::from_secs(30);

/// How much longer than the limit is waited: 1, or what `CORACLE_TEST_PATIENCE` says on a machine that is emulated.
pub fn patience() -> u32 {
    std::env::var("CORACLE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// When a wait of that length has been in vain.
pub fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit * patience()
}

const INTERVAL: Duration = Duration::from_millis(10);

/// Asks until there is an answer; fails the test when there is none by the deadline.
#[track_caller]
pub fn wait_for<T>(what: impl Display, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline(limit);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        thread::sleep(INTERVAL);
    }
}

/// Waits until the condition holds; fails the test when it does not by the deadline.
#[track_caller]
pub fn wait_until(what: impl Display, limit: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, limit, || holds().then_some(()));
}

/// Checks over and over that a condition holds for a while: for what must *not* happen.
#[track_caller]
pub fn holds_for(what: impl Display, time: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        assert!(holds(), "stopped holding: {what}");
        thread::sleep(INTERVAL);
    }
}
