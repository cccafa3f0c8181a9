//! Lifecycle hooks, as pods have them carried out.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{Container, ContainerId, Handler, Pod};
use coracle_pod::ports::{Failure, Hooks};
use coracle_probe::{Prober, Target, run_hook};

use super::probe::ProbedNode;

/// Carries out hooks by the ways of the node's prober.
pub(crate) struct HookPort {
    prober: Arc<Prober<ProbedNode>>,
}

// === impl HookPort ===

impl HookPort {
    pub(super) fn new(prober: Arc<Prober<ProbedNode>>) -> Self {
        Self { prober }
    }
}

impl Hooks for HookPort {
    async fn run_hook(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        id: ContainerId,
        handler: &Handler,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        let target = Target { pod: Arc::clone(pod), container: container.name.clone(), id };
        run_hook(self.prober.checker(), self.prober.node(), &target, handler, timeout)
            .await
            .map_err(|message| Failure::new("LifecycleHookFailed", message))
    }
}
