//! When a pause that lives and did not answer is asked again.

use std::time::Duration;

/// Most of what keeps a pause from answering is over at once: a connection that broke, a host that is busy.
const FIRST: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// What is not may last for as long as somebody wants it to, as a frozen pod.
const LATER: Duration = Duration::from_secs(10);

/// How long to wait before each further attempt.
pub(crate) fn ask_again() -> impl Iterator<Item = Duration> {
    FIRST.into_iter().chain(std::iter::repeat(LATER))
}
