//! Lifecycle hooks: they take no time unless they sleep.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{Container, ContainerId, Handler, Pod};
use tokio::time::{sleep, timeout};

use super::{Fake, Verb};
use crate::ports::*;

/// A hook being carried out, until it ends or is dropped.
struct UnderWay<'a> {
    fake: &'a Fake,
    id: ContainerId,
}

impl Hooks for Fake {
    async fn run_hook(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: ContainerId,
        handler: &Handler,
        limit: Option<Duration>,
    ) -> Result<(), Failure> {
        let is_post_start = container.lifecycle.post_start.as_ref() == Some(handler);
        let verb = if is_post_start { Verb::PostStart } else { Verb::PreStop };
        let _under_way = UnderWay::new(self, id);
        self.with(|state| {
            let host = state.pods.get(&pod.uid);
            let one = host.and_then(|host| host.observed.containers.iter().find(|one| one.id == id));
            let runs = one.is_some_and(|one| matches!(one.state, ObservedState::Running { .. }));
            let signalled = state.signalled.contains_key(&id);
            state.check(runs, || format!("{verb:?} of a container that does not run"));
            state.check(!signalled, || format!("{verb:?} after the stop signal"));
        });
        let work = async {
            self.call(verb, &container.name).await?;
            if let Handler::Sleep(time) = handler {
                sleep(*time).await;
            }
            Ok(())
        };
        let result = match limit {
            Some(limit) => {
                timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::new("Hook", "too long")))
            }
            None => work.await,
        };
        if is_post_start && result.is_ok() {
            self.with(|state| {
                state.post_started.insert(id);
                state.begin(&pod.uid, id);
            });
        }
        result
    }
}

impl<'a> UnderWay<'a> {
    fn new(fake: &'a Fake, id: ContainerId) -> Self {
        fake.with(|state| {
            let alone = state.hooks.insert(id);
            state.check(alone, || "two hooks of one container at a time".to_owned());
        });
        Self { fake, id }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.fake.with(|state| state.hooks.remove(&self.id));
    }
}
