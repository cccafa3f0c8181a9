//! Probes that find what the test says.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{ContainerId, Pod, PodUid};

use super::Fake;
use crate::Pods;
use crate::ports::*;

impl Fake {
    /// Has the probes of the container that lives under that name find something. Whether it is probed.
    pub(crate) fn find(
        &self,
        pods: &Pods<Fake>,
        uid: &PodUid,
        name: &str,
        change: impl FnOnce(&mut Findings),
    ) -> bool {
        let found = self.with(|state| {
            let probed = state.probed.get_mut(uid)?;
            let (probed, findings) = probed.values_mut().find(|(probed, _)| probed.name == name)?;
            let id = probed.id;
            change(findings);
            state.begin(uid, id);
            Some(())
        });
        pods.notify(uid);
        found.is_some()
    }

    /// Who is probed, and whether only for its readiness.
    pub(crate) fn probed(&self, uid: &PodUid) -> Vec<(String, bool)> {
        self.with(|state| {
            let probed = state.probed.get(uid).into_iter().flat_map(BTreeMap::values);
            probed.map(|(probed, _)| (probed.name.clone(), probed.readiness_only)).collect()
        })
    }
}

impl Probes for Fake {
    fn set_probed(&self, pod: &Arc<Pod>, containers: Vec<Probed>) {
        self.with(|state| {
            let mut before = state.probed.remove(&pod.uid).unwrap_or_default();
            let mut now = BTreeMap::new();
            for probed in containers {
                let spec = pod.container(&probed.name).unwrap();
                let host = state.pods.get(&pod.uid);
                let all = host.map(|host| host.observed.containers.as_slice()).unwrap_or_default();
                let runs = all.iter().any(|one| {
                    let is_it = one.id == probed.id && one.name == probed.name;
                    is_it && matches!(one.state, ObservedState::Running { .. })
                });
                let hooked = spec.lifecycle.post_start.is_none() || state.post_started.contains(&probed.id);
                state.check(runs, || format!("{} is probed and does not run", probed.name));
                state
                    .check(hooked, || format!("{} is probed before its postStart hook is done", probed.name));
                let first = Findings {
                    started: spec.probes.startup.is_none(),
                    ready: spec.probes.startup.is_none() && spec.probes.readiness.is_none(),
                    failed: None,
                };
                let kept = before.remove(&probed.id).map(|(_, findings)| findings);
                let findings = kept.or_else(|| probed.known.clone()).unwrap_or(first);
                now.insert(probed.id, (probed, findings));
            }
            if !now.is_empty() {
                state.probed.insert(pod.uid.clone(), now);
            }
        });
    }

    fn findings(&self, pod: &PodUid) -> BTreeMap<ContainerId, Findings> {
        self.with(|state| {
            let probed = state.probed.get(pod).into_iter().flatten();
            probed.map(|(id, (_, findings))| (*id, findings.clone())).collect()
        })
    }
}
