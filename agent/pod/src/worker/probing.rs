//! Which containers are probed, and what was found.

use super::Worker;
use crate::board::WorkerPhase;
use crate::ports::{Observed, ObservedState, Ports, Probed, Probes};

impl<P: Ports> Worker<P> {
    /// Has those containers probed that are to be, and takes note of what was found.
    pub(super) fn follow_probes(&mut self, observed: &Observed) {
        if !self.has_probes {
            return;
        }
        let probed = self.to_probe(observed);
        let ids: Vec<_> = probed.iter().map(|it| (it.id, it.readiness_only)).collect();
        if ids != self.probed {
            self.ports.probes().set_probed(&self.record.pod, probed);
            self.probed = ids;
        }
        for (id, findings) in self.ports.probes().findings(&self.record.pod.uid) {
            if !self.probed.iter().any(|(probed, _)| *probed == id) {
                continue;
            }
            let known = &mut self.record.progress.entry(id).or_default().findings;
            if known.as_ref() != Some(&findings) {
                *known = Some(findings);
                self.unsaved = true;
            }
        }
    }

    /// The containers that run and have passed their postStart hook. While the pod ends, they are only asked
    /// whether they are ready.
    fn to_probe(&self, observed: &Observed) -> Vec<Probed> {
        if self.phase >= WorkerPhase::Terminated {
            return Vec::new();
        }
        let readiness_only = self.phase == WorkerPhase::Terminating;
        let scene = self.scene(observed);
        let probed = scene.parts().zip(scene.views()).filter_map(|(part, view)| {
            let live = view.live?;
            let ObservedState::Running { started_at } = live.state else { return None };
            let probes = &part.spec.probes;
            let has_any = if readiness_only { probes.readiness.is_some() } else { !probes.is_empty() };
            let is_due = has_any && scene.is_current(live) && !scene.awaits_post_start(part.spec, live);
            is_due.then(|| Probed {
                id: live.id,
                name: live.name.clone(),
                started_at,
                known: scene.progress.get(&live.id).and_then(|progress| progress.findings.clone()),
                readiness_only,
            })
        });
        probed.collect()
    }
}
