//! Answers that are still good, and questions that are being asked.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_model::ImageName;
use rustix::time::{ClockId, clock_gettime};

use super::exec::{Answer, Key};

/// What a provider has answered before.
#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// With the time since boot they are good until.
    answers: HashMap<Key, (Duration, Arc<Answer>)>,
    /// Repositories that the provider is being asked for.
    asking: HashSet<String>,
}

/// Takes a repository out of those being asked for, whatever becomes of whoever asks.
struct Asking<'a> {
    cache: &'a Cache,
    repository: String,
}

// === impl Cache ===

impl Cache {
    /// The answer for an image: one from before, or what `ask` brings. Of several who want one image one asks.
    pub(super) fn get(
        &self,
        name: &ImageName,
        ask: impl FnOnce() -> Result<Answer, String>,
    ) -> Result<Arc<Answer>, String> {
        let repository = name.repository();
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.good(name) {
                return Ok(answer);
            }
            if state.asking.insert(repository.clone()) {
                break;
            }
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let _asking = Asking { cache: self, repository };
        let answer = Arc::new(ask()?);
        if !answer.good_for.is_zero() {
            let now = now();
            let mut state = self.lock();
            state.answers.retain(|_, (until, _)| *until > now);
            state
                .answers
                .insert(answer.key.clone(), (now.saturating_add(answer.good_for), Arc::clone(&answer)));
        }
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn good(&self, name: &ImageName) -> Option<Arc<Answer>> {
        let keys = [Key::Image(name.repository()), Key::Registry(name.domain().to_owned()), Key::Global];
        let mut found = keys.iter().filter_map(|key| self.answers.get(key));
        found.find(|(until, _)| *until > now()).map(|(_, answer)| Arc::clone(answer))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.cache.lock().asking.remove(&self.repository);
        self.cache.asked.notify_all();
    }
}

/// The time since boot, which goes on while the machine sleeps, as tokens do.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanoseconds)
}
