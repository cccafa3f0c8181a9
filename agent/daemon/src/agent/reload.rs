//! `reload`: the configuration, read again as a whole.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use coracle_document::Diagnostic;
use coracle_sandbox::Runtime;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use super::event::NodeEvents;
use super::images::{NodeImages, Sources};
use super::manifest_url;
use super::parts::runtime_settings;
use super::service::Notifier;
use super::wiring::Agent;
use crate::config::{Changes, Config, Loaded, Overrides, changes};
use crate::words;

/// What reads the configuration again.
pub(super) struct Reload {
    overrides: Overrides,
    config: watch::Sender<Arc<Config>>,
    runtime: Runtime,
    images: NodeImages,
    events: Arc<NodeEvents>,
    notifier: Notifier,
}

// === impl Reload ===

impl Reload {
    /// For an agent that was started with these flags.
    pub(super) fn of(agent: &Agent, overrides: &Overrides, notifier: &Notifier) -> Self {
        Self {
            overrides: overrides.clone(),
            config: agent.config.clone(),
            runtime: agent.runtime(),
            images: agent.images.clone(),
            events: Arc::clone(&agent.node_events),
            notifier: notifier.clone(),
        }
    }

    /// Reads it with each hangup (SIGHUP).
    pub(super) async fn follow(self, mut hangups: Signal) -> Infallible {
        let this = Arc::new(self);
        loop {
            if hangups.recv().await.is_none() {
                return std::future::pending().await;
            }
            this.reload().await;
        }
    }

    /// What is wrong is said, and changes nothing.
    async fn reload(self: &Arc<Self>) {
        self.notifier.reloading();
        let reading = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || reading.read());
        match read.await.context("the configuration was not read").and_then(|read| read) {
            Ok((loaded, sources)) => self.apply(&loaded, sources),
            Err(error) => self.events.not_reloaded(format!(
                "The configuration cannot be used, and the node goes on with the one it has: {}",
                words::whole(&error)
            )),
        }
        self.notifier.reloaded();
    }

    /// The configuration, and what it names. Blocks on the disk.
    fn read(&self) -> anyhow::Result<(Loaded, Sources)> {
        let loaded = Loaded::load(&self.overrides)?;
        let sources = self.images.sources(&loaded.config)?;
        if let Some(url) = &loaded.config.manifest_url {
            manifest_url::fetcher(url)?;
        }
        Ok((loaded, sources))
    }

    fn apply(&self, loaded: &Loaded, sources: Sources) {
        warn(&loaded.warnings);
        let (old, new) = (Arc::clone(&self.config.borrow()), &loaded.config);
        let Changes { live, restart } = changes(&old.settings, &new.settings);
        let config = Arc::new(old.with_live_of(new));
        self.runtime.change(runtime_settings(&config));
        // Also where no field has changed: files that they name may have.
        self.images.change(&config, sources);
        self.config.send_replace(config);
        self.events.reloaded(match live.as_slice() {
            [] => "The configuration was read again: nothing is different that counts at once".to_owned(),
            fields => {
                format!("The configuration was read again, and counts from now on: {}", fields.join(", "))
            }
        });
        if !restart.is_empty() {
            self.events.needs_restart(format!(
                "These fields of the configuration have changed, and count when the agent is started again: {}",
                restart.join(", ")
            ));
        }
    }
}

/// Says what of a configuration has no effect.
pub(super) fn warn(warnings: &[Diagnostic]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}
