//! What the manifests say, and who of several claimants has a namespace and name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use coracle_model::{Pod, PodKey, PodUid};
use jiff::Timestamp;

use crate::{Desired, DesiredState, Problem};

/// All manifests of a source, as they were last understood.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    files: BTreeMap<Arc<Path>, File>,
    /// Who has a namespace and name now.
    owners: BTreeMap<PodKey, Desired>,
    /// What was wrong when it was last resolved, so that a lasting problem keeps its time.
    problems: BTreeMap<Arc<Path>, Problem>,
    /// What is wrong with the directory itself.
    place: Option<Problem>,
    turn: u64,
}

#[derive(Debug, Default)]
struct File {
    /// Its pods when it was last valid.
    pods: Vec<Arc<Pod>>,
    /// When it first claimed each of them: the earlier claimant has precedence.
    since: BTreeMap<PodKey, u64>,
    /// What is wrong with it now.
    fault: Option<String>,
}

impl Catalog {
    /// Starts from the pods that run already, so that a file that is invalid now takes nothing from them.
    pub(crate) fn from_known(known: impl IntoIterator<Item = Desired>) -> Self {
        let mut catalog = Self::default();
        for Desired { pod, source } in known {
            let file = catalog.files.entry(Arc::clone(&source)).or_default();
            file.since.insert(pod.key.clone(), 0);
            file.pods.push(Arc::clone(&pod));
            catalog.owners.insert(pod.key.clone(), Desired { pod, source });
        }
        catalog
    }

    /// Takes in what a file holds now; `None` when it is not there.
    pub(crate) fn update(&mut self, path: &Arc<Path>, found: Option<Result<Vec<Arc<Pod>>, String>>) {
        self.turn += 1;
        let turn = self.turn;
        let Some(found) = found else {
            self.files.remove(path);
            return;
        };
        let file = self.files.entry(Arc::clone(path)).or_default();
        match found {
            Ok(pods) if pods.is_empty() && !file.pods.is_empty() => {
                file.fault = Some(format!(
                    "{}: the file holds no pod any more; its pods are left alone (remove the file to end them)",
                    path.display()
                ));
            }
            Ok(pods) => {
                file.fault = pods.is_empty().then(|| format!("{}: the file holds no pod", path.display()));
                let since =
                    |pod: &Arc<Pod>| (pod.key.clone(), file.since.get(&pod.key).copied().unwrap_or(turn));
                file.since = pods.iter().map(since).collect();
                file.pods = pods;
            }
            Err(message) => file.fault = Some(message),
        }
    }

    /// The files that are known.
    pub(crate) fn paths(&self) -> Vec<Arc<Path>> {
        self.files.keys().cloned().collect()
    }

    /// Whether a file is known, valid or not.
    pub(crate) fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// Whether some pod is claimed.
    pub(crate) fn has_pods(&self) -> bool {
        self.files.values().any(|file| !file.pods.is_empty())
    }

    /// Says what is wrong with the directory as a whole.
    pub(crate) fn set_place_problem(&mut self, path: &Arc<Path>, message: Option<String>, now: Timestamp) {
        self.place = message.map(|message| match self.place.take() {
            Some(before) if before.message == message => before,
            _ => Problem { path: Arc::clone(path), message, since: now },
        });
    }

    /// What is wanted, all claims weighed.
    pub(crate) fn resolve(&mut self, now: Timestamp) -> DesiredState {
        let mut faults: BTreeMap<Arc<Path>, Vec<String>> = BTreeMap::new();
        for (path, file) in &self.files {
            if let Some(fault) = &file.fault {
                faults.entry(Arc::clone(path)).or_default().push(fault.clone());
            }
        }
        let mut owners: BTreeMap<PodKey, Desired> = BTreeMap::new();
        for (key, claims) in self.claims() {
            let owner = match &claims[..] {
                [only] => only.clone(),
                all => {
                    let owner = self.settle(&key, all);
                    for claim in all {
                        let text = conflict(&key, claim, all, &owner);
                        faults.entry(Arc::clone(&claim.source)).or_default().push(text);
                    }
                    owner
                }
            };
            owners.insert(key, owner);
        }
        let pods = unique(&self.owners, &owners, &mut faults);
        owners.retain(|_, owner| pods.get(&owner.pod.uid) == Some(owner));
        self.owners = owners;
        self.problems = self.dated(faults, now);
        let problems = self.place.iter().chain(self.problems.values()).cloned().collect();
        DesiredState { pods, problems }
    }

    /// Who claims what, the earliest first.
    fn claims(&self) -> BTreeMap<PodKey, Vec<Desired>> {
        let mut claims: BTreeMap<PodKey, Vec<(u64, Desired)>> = BTreeMap::new();
        for (path, file) in &self.files {
            for pod in &file.pods {
                let since = file.since.get(&pod.key).copied().unwrap_or(u64::MAX);
                let claim = Desired { pod: Arc::clone(pod), source: Arc::clone(path) };
                claims.entry(pod.key.clone()).or_default().push((since, claim));
            }
        }
        let ordered = |mut all: Vec<(u64, Desired)>| {
            // Stable: of one time, in order of path and of place in the file.
            all.sort_by_key(|(since, _)| *since);
            all.into_iter().map(|(_, claim)| claim).collect()
        };
        claims.into_iter().map(|(key, all)| (key, ordered(all))).collect()
    }

    /// Who has a key that several claim: who has it already, as it is, as long as its file claims it;
    /// else the earliest.
    fn settle(&self, key: &PodKey, claims: &[Desired]) -> Desired {
        let stays = self.owners.get(key).filter(|owner| claims.iter().any(|one| one.source == owner.source));
        stays.unwrap_or(&claims[0]).clone()
    }

    fn dated(
        &self,
        faults: BTreeMap<Arc<Path>, Vec<String>>,
        now: Timestamp,
    ) -> BTreeMap<Arc<Path>, Problem> {
        let dated = |(path, messages): (Arc<Path>, Vec<String>)| {
            let message = messages.join("\n");
            let before = self.problems.get(&path).filter(|before| before.message == message);
            let since = before.map_or(now, |before| before.since);
            (Arc::clone(&path), Problem { path, message, since })
        };
        faults.into_iter().map(dated).collect()
    }
}

fn conflict(key: &PodKey, claim: &Desired, all: &[Desired], owner: &Desired) -> String {
    let others: BTreeSet<_> =
        all.iter().map(|one| &one.source).filter(|path| **path != claim.source).collect();
    let elsewhere = match others.is_empty() {
        true => "more than once in this file".to_owned(),
        false => {
            let paths: Vec<_> = others.iter().map(|path| path.display().to_string()).collect();
            format!("also in {}", paths.join(", "))
        }
    };
    format!(
        "{}: pod {key} is defined {elsewhere}; the pod from {} stays as it is until only one defines it",
        claim.source.display(),
        owner.source.display()
    )
}

/// The pods by UID. Two pods of different names may not have one `metadata.uid`; who has it keeps it.
fn unique(
    before: &BTreeMap<PodKey, Desired>,
    owners: &BTreeMap<PodKey, Desired>,
    faults: &mut BTreeMap<Arc<Path>, Vec<String>>,
) -> BTreeMap<PodUid, Desired> {
    let mut pods: BTreeMap<PodUid, Desired> = BTreeMap::new();
    let held = |owner: &&Desired| before.get(&owner.pod.key).is_some_and(|one| one.pod.uid == owner.pod.uid);
    let (first, then): (Vec<_>, Vec<_>) = owners.values().partition(held);
    for owner in first.into_iter().chain(then) {
        match pods.get(&owner.pod.uid) {
            None => drop(pods.insert(owner.pod.uid.clone(), owner.clone())),
            Some(holder) => faults.entry(Arc::clone(&owner.source)).or_default().push(format!(
                "{}: metadata.uid: Duplicate value: {:?}: pod {} in {} has it",
                owner.source.display(),
                owner.pod.uid.as_str(),
                holder.pod.key,
                holder.source.display()
            )),
        }
    }
    pods
}

#[cfg(test)]
pub(crate) mod tests {
    use coracle_model::{Name, PodSpec};

    use super::*;

    pub(crate) fn pod(uid: &str, name: &str) -> Arc<Pod> {
        Arc::new(Pod {
            uid: uid.parse().unwrap(),
            key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label(name).unwrap() },
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: PodSpec::new(Vec::new()),
            object: String::new(),
        })
    }

    pub(crate) fn desired(uid: &str, name: &str) -> Desired {
        Desired { pod: pod(uid, name), source: path(name) }
    }

    fn path(name: &str) -> Arc<Path> {
        Arc::from(Path::new("/m").join(format!("{name}.yaml")))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn uids(state: &DesiredState) -> Vec<&str> {
        state.pods.keys().map(PodUid::as_str).collect()
    }

    struct Test(Catalog);

    impl Test {
        fn holds(&mut self, file: &str, pods: &[Arc<Pod>]) -> DesiredState {
            self.found(file, Some(Ok(pods.to_vec())))
        }

        fn found(&mut self, file: &str, found: Option<Result<Vec<Arc<Pod>>, String>>) -> DesiredState {
            self.0.update(&path(file), found);
            self.0.resolve(at(0))
        }
    }

    #[test]
    fn an_invalid_file_takes_nothing_from_its_pods() {
        let mut test = Test(Catalog::default());
        assert_eq!(uids(&test.holds("a", &[pod("1", "web")])), ["1"]);
        for found in [Err("a.yaml:3: wrong".to_owned()), Ok(vec![])] {
            let state = test.found("a", Some(found));
            assert_eq!((uids(&state), state.problems.len()), (vec!["1"], 1));
        }
        let state = test.holds("a", &[pod("2", "web")]);
        assert_eq!((uids(&state), state.problems.len()), (vec!["2"], 0));
        assert_eq!(uids(&test.found("a", None)), Vec::<&str>::new());

        let mut restarted = Test(Catalog::from_known([Desired { pod: pod("1", "web"), source: path("a") }]));
        assert_eq!(uids(&restarted.found("a", Some(Err("wrong".to_owned())))), ["1"]);
    }

    #[test]
    fn two_files_that_claim_one_pod_are_both_told_and_the_first_keeps_it() {
        let mut test = Test(Catalog::default());
        test.holds("b", &[pod("1", "web")]);
        let state = test.holds("a", &[pod("2", "web")]);
        assert_eq!(uids(&state), ["1"], "the earlier claimant, not the first by name");
        assert_eq!(state.problems.len(), 2);
        for problem in &state.problems {
            assert!(
                problem.message.contains("/m/a.yaml") && problem.message.contains("/m/b.yaml"),
                "{problem:?}"
            );
        }
        assert_eq!(uids(&test.holds("b", &[pod("3", "web")])), ["1"], "neither claim replaces what runs");
        assert_eq!(uids(&test.found("a", None)), ["3"], "one is left, and counts");
        let state = test.holds("b", &[pod("4", "web"), pod("5", "web")]);
        assert_eq!(uids(&state), ["3"], "also within one file");
        assert!(state.problems[0].message.contains("more than once"));
    }

    #[test]
    fn when_the_owner_leaves_the_earliest_claim_has_it() {
        let mut test = Test(Catalog::from_known([Desired { pod: pod("1", "web"), source: path("z") }]));
        test.holds("c", &[pod("3", "web")]);
        assert_eq!(uids(&test.holds("b", &[pod("2", "web")])), ["1"], "what runs, also after a restart");
        assert_eq!(uids(&test.found("z", None)), ["3"]);
    }

    #[test]
    fn two_pods_cannot_have_one_uid() {
        let mut test = Test(Catalog::default());
        test.holds("b", &[pod("1", "web")]);
        let state = test.holds("a", &[pod("1", "db")]);
        assert_eq!(state.pods.values().next().unwrap().pod.key.name.as_str(), "web");
        assert_eq!(state.problems.len(), 1);
        assert_eq!(state.problems[0].path, path("a"));
    }

    #[test]
    fn a_problem_keeps_its_time_while_it_lasts() {
        let mut catalog = Catalog::default();
        for (second, message, since) in [(1, "x", 1), (2, "x", 1), (3, "y", 3)] {
            catalog.update(&path("a"), Some(Err(message.to_owned())));
            assert_eq!(catalog.resolve(at(second)).problems[0].since, at(since));
        }
    }
}
