//! Taking in ephemeral containers.

use std::sync::Arc;

use super::Worker;
use crate::action::Step;
use crate::board::WorkerPhase;
use crate::ephemeral::{self, Addition, NotAdded};
use crate::ports::Ports;

impl<P: Ports> Worker<P> {
    /// Adds an ephemeral container, unless the pod has come to its end. It is made, and whoever asked for it is
    /// told, once it is on record.
    pub(super) fn accept_addition(&mut self, Addition { container, answer }: Addition) {
        let added = match self.phase {
            WorkerPhase::Syncing => ephemeral::with(&self.record.pod, container),
            _ => Err(NotAdded::NotRunning(self.record.pod.key.clone())),
        };
        match added {
            Ok(pod) => {
                self.record.pod = Arc::new(pod);
                self.added.push(answer);
                // One that is being written does not say so yet.
                self.acting.give_up(Step::SaveRecord);
                self.unsaved = true;
                self.recorded = false;
            }
            // Whoever has gone need not be told.
            Err(error) => drop(answer.send(Err(error))),
        }
    }
}
