//! Taking a pod towards running.

use coracle_model::EventType;
use tokio::time::Instant;

use super::{Moment, Worker};
use crate::action::{Action, Index};
use crate::plan::{self, Facts, Plan, Prepared, Timer};
use crate::ports::{Observed, Ports};

impl<P: Ports> Worker<P> {
    /// What is to be done for a pod that is to run.
    pub(super) fn sync(&mut self, observed: &Observed, moment: Moment, timer: &mut Timer) -> Vec<Action> {
        let mut plan = self.plan(observed, moment);
        if !plan.stops.is_empty() {
            for (id, cause) in std::mem::take(&mut plan.stops) {
                self.order_stop(id, cause, observed, moment);
            }
            plan = self.plan(observed, moment);
        }
        if plan.outcome.is_some() {
            self.end(moment);
            return Vec::new();
        }
        if !plan.starting {
            self.prepared = Prepared::default();
        }
        for (index, back_off) in &plan.back_off {
            if !self.back_off.contains_key(index) {
                self.back_off_event(*index);
            }
            tracing::debug!(pod = %self.record.pod.key, index, delay = ?back_off.delay, "in back-off");
        }
        self.back_off = plan.back_off;
        *timer = plan.timer;
        plan.actions
    }

    fn plan(&self, observed: &Observed, moment: Moment) -> Plan {
        let instant = Instant::now();
        plan::sync(&Facts {
            scene: self.scene(observed),
            prepared: &self.prepared,
            streak_base: &self.record.streak_base,
            stops: &self.stops(moment),
            held: &|step| self.failing.get(&step).is_some_and(|failing| failing.not_before > instant),
            now: moment.now,
        })
    }

    fn back_off_event(&self, index: Index) {
        let pod = &self.record.pod;
        if let Some(container) = pod.all_containers().nth(index) {
            let message = format!(
                "Back-off restarting failed container {} in pod {}_{}({})",
                container.name, pod.key.name, pod.key.namespace, pod.uid
            );
            self.event(EventType::Warning, "BackOff", Some(&container.name), message);
        }
    }
}
