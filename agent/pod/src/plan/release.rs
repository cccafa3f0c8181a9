//! Releasing what a pod has whose containers have all ended.

use crate::action::Action;

/// What of a terminated pod was released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) sandbox: bool,
    /// Or it asked for none.
    pub(crate) devices: bool,
    pub(crate) volumes: bool,
    pub(crate) logs: bool,
    pub(crate) record: bool,
}

/// Releases what a terminated pod has. `recorded`: its end is on record, so that its containers are no
/// longer needed to tell it. `deleted`: its logs and its record go, too. `begins_again`: its volumes stay for that.
pub(crate) fn release(released: Released, recorded: bool, deleted: bool, begins_again: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    if !released.sandbox {
        // A pod that is only at its end is still shown; one that is deleted does not wait for a full disk.
        if recorded || deleted {
            actions.push(Action::RemoveSandbox);
        }
        return actions;
    }
    if !released.devices {
        actions.push(Action::ReleaseDevices);
    }
    if !released.volumes && !begins_again {
        actions.push(Action::ReleaseVolumes);
    }
    if deleted && !released.logs {
        actions.push(Action::ReleaseLogs);
    }
    if deleted && released.devices && released.volumes && released.logs && !released.record {
        actions.push(Action::ForgetRecord);
    }
    actions
}
