//! What is observed of one container of the specification.

use crate::ports::{Observed, ObservedContainer};

/// The containers of one name.
#[derive(Debug, Default)]
pub(crate) struct View<'a> {
    /// The one created or running.
    pub(crate) live: Option<&'a ObservedContainer>,
    /// Further live ones, which must not be.
    pub(crate) surplus: Vec<&'a ObservedContainer>,
    /// The last that ended.
    pub(crate) dead: Option<&'a ObservedContainer>,
    /// Those that ended before it.
    pub(crate) older: Vec<&'a ObservedContainer>,
    /// The restart count the next one gets.
    pub(crate) next_attempt: u32,
}

impl<'a> View<'a> {
    /// What is observed under this name.
    pub(crate) fn of(observed: &'a Observed, name: &str) -> Self {
        let mut view = Self::default();
        for container in observed.containers.iter().filter(|container| container.name == name) {
            view.next_attempt = view.next_attempt.max(container.attempt.saturating_add(1));
            let (place, rest) = match container.is_live() {
                true => (&mut view.live, &mut view.surplus),
                false => (&mut view.dead, &mut view.older),
            };
            // In order of creation, so at equal attempts the later one wins.
            match *place {
                Some(before) if before.attempt > container.attempt => rest.push(container),
                before => {
                    rest.extend(before);
                    *place = Some(container);
                }
            }
        }
        view
    }

    /// The live one, else the last that ended.
    pub(crate) fn latest(&self) -> Option<&'a ObservedContainer> {
        self.live.or(self.dead)
    }
}
