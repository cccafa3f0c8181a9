//! Desired against known.

use std::collections::BTreeMap;

use coracle_model::PodUid;

use crate::{Desired, DesiredState};

/// What is to be done so that what is known becomes what is desired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Pods to end, before any is added.
    pub terminate: Vec<PodUid>,
    /// Pods to run.
    pub add: Vec<Desired>,
}

/// Compares the desired pods with those known of the same source, each with whether it is being removed.
///
/// A changed manifest is a new pod, so it is in both lists, under its old UID and its new one. A pod that
/// is being removed and desired again is added again.
pub fn diff(desired: &DesiredState, known: impl IntoIterator<Item = (PodUid, bool)>) -> Changes {
    let known: BTreeMap<PodUid, bool> = known.into_iter().collect();
    let missing = |uid: &&PodUid| !desired.pods.contains_key(*uid);
    let wanted = |uid: &PodUid| known.get(uid).is_none_or(|being_removed| *being_removed);
    Changes {
        terminate: known
            .iter()
            .filter(|(_, being_removed)| !**being_removed)
            .map(|(uid, _)| uid)
            .filter(missing)
            .cloned()
            .collect(),
        add: desired.pods.iter().filter(|(uid, _)| wanted(uid)).map(|(_, pod)| pod.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::desired;

    #[test]
    fn what_is_added_and_what_goes() {
        let state = DesiredState {
            pods: ["new", "kept", "again"].map(|uid| (uid.parse().unwrap(), desired(uid, uid))).into(),
            ..DesiredState::default()
        };
        let known = [("kept", false), ("again", true), ("old", false), ("going", true)];
        let changes = diff(&state, known.map(|(uid, going)| (uid.parse().unwrap(), going)));
        let added: Vec<_> = changes.add.iter().map(|one| one.pod.uid.as_str()).collect();
        assert_eq!(added, ["again", "new"]);
        assert_eq!(changes.terminate, ["old".parse().unwrap()]);
        let achieved = state.pods.keys().map(|uid| (uid.clone(), false));
        assert_eq!(diff(&state, achieved), Changes::default());
    }
}
