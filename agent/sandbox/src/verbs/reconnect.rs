//! Connecting to a pause again that closed the connection and lives.
//!
//! pause waits for no agent: one that reads too slowly is disconnected, and has missed what ended since.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::adopt::is_gone;
use super::exit::namespace_ended;
use crate::error::Error;
use crate::pause::{Event, Listed, ask_again};
use crate::pod::{PodState, Sandbox};
use crate::runtime::Inner;

impl Inner {
    /// Connects to the pod's pause once more and catches up on what ended meanwhile; what it tells from
    /// now on. `None` when it is dead.
    pub(super) async fn reconnect(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        events: &mut UnboundedReceiver<Event>,
    ) -> Option<UnboundedReceiver<Event>> {
        for delay in ask_again() {
            // A pause that dies closes its connection a moment before it is seen to be dead.
            if let Ok(Some(Event::Died) | None) = tokio::time::timeout(delay, events.recv()).await {
                return None;
            }
            let lost = state.live_sandbox()?;
            match self.connect_again(state, &lost).await {
                Ok((_, _, true)) => {
                    self.namespace_died(state).await;
                    return None;
                }
                Ok((listed, again, false)) => {
                    tracing::warn!(pod = %state.uid, "lost the connection to pause and made it again");
                    self.catch_up(state, listed);
                    return Some(again);
                }
                Err(error) => {
                    tracing::warn!(pod = %state.uid, %error, "lost the connection to pause");
                    if is_gone(&error) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// A new connection in place of the one that was lost, and whether the containers' shared pid namespace is
    /// gone.
    async fn connect_again(
        &self,
        state: &PodState,
        lost: &Sandbox,
    ) -> Result<(Vec<Listed>, UnboundedReceiver<Event>, bool), Error> {
        let (sandbox, events) = self.connect(state, lost.cgroup.clone()).await?;
        let listed = sandbox.client.list().await?;
        let namespace_ended = namespace_ended(&sandbox.client).await?;
        let mut data = state.data();
        let replaced = data.sandbox.as_ref().is_some_and(|now| Arc::ptr_eq(&now.client, &lost.client));
        if data.dead || !replaced {
            return Err(Error::NoSandbox(state.uid.clone()));
        }
        data.sandbox = Some(sandbox);
        // Ends of programs are told once: those who wait learn that theirs is lost.
        data.execs.forget();
        Ok((listed, events, namespace_ended))
    }

    /// Completes the containers whose end was told to nobody.
    fn catch_up(self: &Arc<Self>, state: &Arc<PodState>, listed: Vec<Listed>) {
        for Listed { container: id, exit, .. } in &listed {
            if let (Some(exit), Some(container)) = (*exit, state.container(*id)) {
                let (inner, state) = (Arc::clone(self), Arc::clone(state));
                tokio::spawn(async move { inner.finish(&state, &container, Some(exit)).await });
            }
        }
        let (inner, state) = (Arc::clone(self), Arc::clone(state));
        tokio::spawn(async move {
            // Those of creations that broke off with the connection, once that is all they are.
            drop(state.verbs.write().await);
            if let Some(sandbox) = state.live_sandbox() {
                inner.release_ended(&state, &sandbox, &listed).await;
            }
        });
    }
}
