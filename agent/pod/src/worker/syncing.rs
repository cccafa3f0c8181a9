//! Taking a pod towards running.

use std::collections::BTreeMap;

use coracle_model::EventType;
use tokio::time::Instant;

use super::Worker;
use crate::action::{Action, Index, Step};
use crate::age::Moment;
use crate::plan::{self, Facts, Plan, Prepared, Restarting, Timer};
use crate::ports::{Observed, Ports};
use crate::scene::Role;

impl<P: Ports> Worker<P> {
    /// What is to be done for a pod that is to run.
    pub(super) fn sync(&mut self, observed: &Observed, moment: Moment, timer: &mut Timer) -> Vec<Action> {
        if self.exceeds_deadline(moment, timer) {
            return Vec::new();
        }
        let mut plan = self.plan(observed, moment);
        if !plan.stops.is_empty() {
            for (id, cause) in std::mem::take(&mut plan.stops) {
                self.order_stop(id, cause, observed, moment);
            }
            plan = self.plan(observed, moment);
        }
        match plan.restarting {
            Some(_) if !self.record.restarting => {
                self.record.restarting = true;
                self.unsaved = true;
            }
            Some(Restarting::Ended) => self.begin_round(observed),
            Some(Restarting::Ending) | None => {}
        }
        if plan.outcome.is_some() {
            self.end(None, None, moment);
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
        timer.0 = timer.0.into_iter().chain(plan.timer.0).min();
        plan.actions
    }

    /// All containers have ended, to be started again: what ran counts for nothing any more. Nothing is made
    /// before this is on record, or the next agent would take what was made for what was to be ended.
    fn begin_round(&mut self, observed: &Observed) {
        let scene = self.scene(observed);
        let (mut round, mut streak_base) = (BTreeMap::new(), BTreeMap::new());
        let restarted = scene.parts().zip(scene.views()).filter(|(part, _)| part.role != Role::Ephemeral);
        for (part, view) in restarted {
            round.insert(part.spec.name.to_string(), view.next_attempt);
            // That it was ended is no crash, unless it is the one that had all of them restarted.
            if !view.dead.is_some_and(|dead| scene.restarts_all(part, dead)) {
                streak_base.insert(part.spec.name.to_string(), view.next_attempt);
            }
        }
        self.record.round = round;
        self.record.streak_base.extend(streak_base);
        self.record.restarting = false;
        // One that is being written does not say so yet.
        self.acting.give_up(Step::SaveRecord);
        self.unsaved = true;
        self.recorded = false;
    }

    fn plan(&self, observed: &Observed, moment: Moment) -> Plan {
        let instant = Instant::now();
        plan::sync(&Facts {
            scene: self.scene(observed),
            prepared: &self.prepared,
            streak_base: &self.record.streak_base,
            stops: &self.stops(moment),
            held: &|step| self.failing.get(&step).is_some_and(|failing| failing.not_before > instant),
            age: &|container| self.ages.of(container, moment),
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
