//! The soak: a hundred pods with probes, whose containers, pauses and agent are killed at random.
//!
//! Beside that images are pulled, removed and collected.
//!
//! A model beside the node says what must have become of every pod: its state, its restart counts, how its last
//! runs ended, when they were started again. In the end all of it is compared, and what the node holds is what its
//! pods need: processes, cgroups, mounts, descriptors, files, memory.
//!
//! `make soak SOAK_SECONDS=300`; `CORACLE_TEST_SEED` repeats what a run has chosen, as far as the machine's own
//! timing allows.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test whose surroundings fail has failed, and says where"
)]

mod held;
mod images;
mod kinds;
mod model;
mod run;

use std::time::{Duration, Instant};

use coracle_tests::needs_root;

use self::held::Held;
use self::run::Soak;

/// How long one round is: two thirds of it with kills of the agent, then one of the same agent.
const ROUND: Duration = Duration::from_secs(300);

#[test]
#[ignore = "takes minutes: make soak"]
fn pods_are_what_they_must_be_whatever_is_killed() {
    needs_root!();
    let number = |variable, default| {
        std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let end = Instant::now() + Duration::from_secs(number("CORACLE_SOAK_SECONDS", 300));
    let mut soak = Soak::start(number("CORACLE_SOAK_PODS", 100) as usize);
    soak.settle();
    Held::assert_belongs(&soak);
    while Instant::now() < end {
        let now = Instant::now();
        let round = ROUND.min(end - now);
        soak.storm(now + round * 2 / 5, true);
        soak.settle();
        Held::assert_belongs(&soak);
        // From here on it is the same agent: what it holds is compared.
        soak.storm(now + round * 3 / 5, false);
        soak.settle_running();
        let before = Held::by(&soak);
        println!("{:?}\n{before}", soak.tally);
        soak.storm(now + round, false);
        soak.settle_running();
        Held::assert_belongs(&soak);
        let after = Held::by(&soak);
        println!("{:?}\n{after}", soak.tally);
        after.assert_no_more_than(&before);
    }
    soak.finish();
}
