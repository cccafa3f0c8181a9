//! Whom to ask next, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::hosts::Host;
use crate::settings::Limits;

/// Asks hosts in order until one has what is wanted; those of whom another attempt may get more are asked again after
/// a wait, a few times.
pub(crate) struct Rounds {
    what: String,
    hosts: Vec<Asked>,
    /// Of the host that is asked now; that after the last before the next round.
    at: usize,
    /// How many rounds have ended.
    round: u32,
    /// The wait before the next round, while it is waited for.
    pause: Option<Instant>,
    limits: Limits,
}

struct Asked {
    host: Arc<Host>,
    failure: Option<Error>,
    /// How long to wait before it is asked again; `None` if that is in vain.
    retry: Option<Duration>,
}

// === impl Rounds ===

impl Rounds {
    pub(crate) fn new(what: String, hosts: Vec<Arc<Host>>, limits: Limits) -> Self {
        let asked = |host| Asked { host, failure: None, retry: Some(Duration::ZERO) };
        Self { what, hosts: hosts.into_iter().map(asked).collect(), at: 0, round: 0, pause: None, limits }
    }

    /// The host to ask, when it is time to. Giving up waiting loses nothing.
    ///
    /// # Errors
    /// What each of them has said, when there is none left.
    pub(crate) async fn next(&mut self) -> Result<Arc<Host>, Error> {
        let hosts = &self.hosts;
        if let Some(at) = (self.at..hosts.len()).find(|at| hosts[*at].retry.is_some()) {
            self.at = at;
            return Ok(Arc::clone(&hosts[at].host));
        }
        let open: Vec<_> = (0..hosts.len()).filter_map(|at| Some((at, hosts[at].retry?))).collect();
        let Some((first, _)) = open.first().copied() else { return Err(self.failed_all()) };
        let until = match self.pause {
            Some(until) => until,
            None => {
                self.round += 1;
                if self.round >= self.limits.attempts {
                    return Err(self.failed_all());
                }
                let asked_for = open.iter().map(|(_, wait)| *wait).min().unwrap_or_default();
                *self.pause.insert(Instant::now() + back_off(self.round, &self.limits).max(asked_for))
            }
        };
        sleep_until(until).await;
        self.pause = None;
        self.at = first;
        Ok(Arc::clone(&self.hosts[first].host))
    }

    /// What has come of the host that was asked.
    pub(crate) fn failed(&mut self, error: Error) {
        let Some(asked) = self.hosts.get_mut(self.at) else { return };
        tracing::debug!(host = asked.host.authority(), what = self.what, %error, "a registry's host has failed");
        asked.retry = error.retry(self.limits.longest_retry_after);
        asked.failure = Some(error);
        self.at += 1;
    }

    /// The host that has failed now had brought the matter forward: it comes first, and all have their attempts anew.
    pub(crate) fn progressed(&mut self) {
        let last = self.at.saturating_sub(1).min(self.hosts.len().saturating_sub(1));
        self.hosts.rotate_left(last);
        for asked in &mut self.hosts[1..] {
            asked.retry = Some(Duration::ZERO);
        }
        self.round = 0;
        // Also the first attempt of these waits a little.
        self.at = self.hosts.len();
    }

    /// What each of those who were asked has said.
    pub(crate) fn give_up(&mut self) -> Error {
        for asked in &mut self.hosts {
            asked.retry = None;
        }
        self.failed_all()
    }

    fn failed_all(&mut self) -> Error {
        let failures = self
            .hosts
            .iter_mut()
            .filter_map(|asked| Some((asked.host.authority().to_owned(), asked.failure.take()?)));
        Error::Hosts { what: std::mem::take(&mut self.what), failures: failures.collect() }
    }
}

/// How long to wait before a round: twice as long as before the one before, of which a random half is left away, so
/// that a registry that was down is not asked by all nodes at once.
fn back_off(round: u32, limits: &Limits) -> Duration {
    let factor = 1_u32.checked_shl(round.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = limits.back_off.saturating_mul(factor).min(limits.longest_back_off);
    whole.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let limits = Limits::default();
        for (round, most) in
            [(1, 500), (2, 1000), (3, 2000), (5, 8000), (6, 10_000), (40, 10_000), (u32::MAX, 10_000)]
        {
            for _ in 0..20 {
                let wait = back_off(round, &limits).as_millis();
                assert!((most / 2..=most).contains(&wait), "{round}: {wait}");
            }
        }
    }
}
