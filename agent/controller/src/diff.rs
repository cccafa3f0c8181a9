//! Desired against known.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_manifest::config_hash;
use coracle_model::{Pod, PodUid};

use crate::{Desired, DesiredState};

/// What is to be done so that what is known becomes what is desired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Pods to end, before any is added: also those that are going, whose successors are not to come.
    pub terminate: Vec<PodUid>,
    /// Pods to run.
    pub add: Vec<Desired>,
}

/// A pod that there is, made of a manifest.
#[derive(Clone, Debug)]
pub struct Known {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Whether it is being removed.
    pub is_going: bool,
}

/// Compares the desired pods with those known of the same source.
///
/// A changed manifest is a new pod, so it is in both lists, under its old UID and its new one; under the same one where
/// the manifest gives it. A pod that is being removed and desired again is added again.
pub fn diff(desired: &DesiredState, known: impl IntoIterator<Item = Known>) -> Changes {
    let known: BTreeMap<PodUid, Known> = known.into_iter().map(|one| (one.pod.uid.clone(), one)).collect();
    let stays = |one: &Known| {
        let wanted = desired.pods.get(&one.pod.uid);
        !one.is_going && wanted.is_some_and(|wanted| config_hash(&wanted.pod) == config_hash(&one.pod))
    };
    // Of one that is going and that nobody wants any more, what was to follow it is withdrawn.
    let goes = |one: &&Known| match one.is_going {
        true => !desired.pods.contains_key(&one.pod.uid),
        false => !stays(one),
    };
    let wanted = |uid: &PodUid| !known.get(uid).is_some_and(stays);
    Changes {
        terminate: known.values().filter(goes).map(|one| one.pod.uid.clone()).collect(),
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
        let known = |uid: &str, is_going| Known { pod: desired(uid, uid).pod, is_going };
        let all = [("kept", false), ("again", true), ("old", false), ("going", true)];
        let changes = diff(&state, all.map(|(uid, is_going)| known(uid, is_going)));
        let added: Vec<_> = changes.add.iter().map(|one| one.pod.uid.as_str()).collect();
        assert_eq!(added, ["again", "new"]);
        assert_eq!(changes.terminate, ["going".parse().unwrap(), "old".parse().unwrap()]);
        let achieved = state.pods.keys().map(|uid| known(uid.as_str(), false));
        assert_eq!(diff(&state, achieved), Changes::default());
    }

    #[test]
    fn a_pod_of_a_given_uid_is_replaced_by_the_next_one_of_it() {
        let hashed = |hash: &str| {
            let mut one = desired("given", "given");
            Arc::make_mut(&mut one.pod).annotations.insert("kubernetes.io/config.hash".into(), hash.into());
            one
        };
        let uid: PodUid = "given".parse().unwrap();
        let state = DesiredState { pods: [(uid.clone(), hashed("new"))].into(), ..DesiredState::default() };
        let changes = |hash: &str, is_going| diff(&state, [Known { pod: hashed(hash).pod, is_going }]);
        assert_eq!(changes("new", false), Changes::default());
        let replaced = Changes { terminate: vec![uid], add: vec![hashed("new")] };
        assert_eq!(changes("old", false), replaced);
        assert_eq!(changes("old", true), Changes { terminate: Vec::new(), ..replaced });
    }
}
