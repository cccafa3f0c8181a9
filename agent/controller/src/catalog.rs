//! What the manifests of all sources define, and what it makes together: a function of their contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{ConfigObject, ManifestSource, Pod, PodKey, PodUid};
use jiff::Timestamp;

use crate::claims::{Claim, Definitions, Faults, Owners, settle};
use crate::configs::Configs;
use crate::immutable;
use crate::kept::Accepted;
use crate::{Desired, DesiredState, Found, Problem, Subject};

/// All manifests, as they were last understood.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    manifests: BTreeMap<ManifestSource, Manifest>,
    /// Who has a namespace and name now.
    pods: Owners<Pod>,
    configs: Owners<ConfigObject>,
    /// What was wrong when it was last resolved, so that a lasting problem keeps its time.
    problems: BTreeMap<ManifestSource, Problem>,
    /// What is wrong with directories and addresses as a whole.
    places: BTreeMap<ManifestSource, Problem>,
    turn: u64,
}

#[derive(Debug, Default)]
struct Manifest {
    /// What it held when it was last valid.
    pods: Definitions<Pod>,
    configs: Definitions<ConfigObject>,
    /// What is wrong with it now.
    fault: Option<String>,
}

impl Catalog {
    /// Starts from the pods that run already, so that a manifest that is invalid now takes nothing from them.
    pub(crate) fn from_known(known: impl IntoIterator<Item = Desired>) -> Self {
        let mut catalog = Self::default();
        for Desired { pod, source } in known {
            catalog.manifests.entry(source.clone()).or_default().pods.add_known(Arc::clone(&pod));
            catalog.pods.insert(pod.key.clone(), Claim { object: pod, source });
        }
        catalog
    }

    /// Adds an object that an agent before this one has accepted: what its manifest says now changes it as if it
    /// had been accepted by this one.
    pub(crate) fn add_known_config(&mut self, Accepted { object, source }: Accepted) {
        self.manifests.entry(source.clone()).or_default().configs.add_known(Arc::clone(&object));
        self.configs.insert(object.key.clone(), Claim { object, source });
    }

    /// The objects that count, and whose they are.
    pub(crate) fn accepted(&self) -> &Owners<ConfigObject> {
        &self.configs
    }

    /// Takes in what a file holds now; `None` when it is not there.
    pub(crate) fn update_file(&mut self, source: &ManifestSource, found: Option<Result<Found, String>>) {
        self.turn += 1;
        let Some(found) = found else {
            self.manifests.remove(source);
            return;
        };
        let manifest = self.manifests.entry(source.clone()).or_default();
        match found {
            Ok(found) if found.is_empty() && manifest.holds_something() => {
                manifest.fault = Some(format!(
                    "{source}: the file is empty now; what it held is left alone (remove the file to end its pods)"
                ));
            }
            Ok(found) => {
                manifest.fault = found.is_empty().then(|| format!("{source}: the file holds no object"));
                manifest.replace(found, self.turn);
            }
            Err(message) => manifest.fault = Some(message),
        }
    }

    /// Takes in what an address has answered with. Other than a file, it has no other way to say that there is
    /// nothing.
    pub(crate) fn update_answer(&mut self, source: &ManifestSource, found: Result<Found, String>) {
        self.turn += 1;
        let manifest = self.manifests.entry(source.clone()).or_default();
        match found {
            Ok(found) => {
                manifest.fault = None;
                manifest.replace(found, self.turn);
            }
            Err(message) => manifest.fault = Some(message),
        }
    }

    /// What is known to come from an address is taken to come from another one, until that has answered; without one it
    /// is wanted no longer.
    pub(crate) fn readdress(&mut self, old: &ManifestSource, new: Option<&ManifestSource>) {
        self.places.remove(old);
        self.problems.remove(old);
        let Some(manifest) = self.manifests.remove(old) else { return };
        let Some(new) = new else { return };
        self.manifests.insert(new.clone(), Manifest { fault: None, ..manifest });
        let of_pods = self.pods.values_mut().map(|claim| &mut claim.source);
        let of_configs = self.configs.values_mut().map(|claim| &mut claim.source);
        for source in of_pods.chain(of_configs).filter(|source| *source == old) {
            *source = new.clone();
        }
    }

    /// The manifests that are known, valid or not.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &ManifestSource> {
        self.manifests.keys()
    }

    /// Whether a manifest is known, valid or not.
    pub(crate) fn knows(&self, source: &ManifestSource) -> bool {
        self.manifests.contains_key(source)
    }

    /// Whether any of these manifests defines anything.
    pub(crate) fn holds_something(&self, of: impl Fn(&ManifestSource) -> bool) -> bool {
        self.manifests.iter().any(|(source, manifest)| of(source) && manifest.holds_something())
    }

    /// Says what is wrong with a directory or an address as a whole.
    pub(crate) fn set_place_problem(
        &mut self,
        place: &ManifestSource,
        message: Option<String>,
        now: Timestamp,
    ) {
        let Some(message) = message else {
            self.places.remove(place);
            return;
        };
        if self.places.get(place).is_none_or(|before| before.message != message) {
            let problem = Problem { source: place.clone(), subject: Subject::Place, message, since: now };
            self.places.insert(place.clone(), problem);
        }
    }

    /// What is wanted, all claims weighed. `complete` says that every source was read.
    pub(crate) fn resolve(&mut self, complete: bool, now: Timestamp) -> DesiredState {
        let mut faults = Faults::new();
        for (source, manifest) in &self.manifests {
            if let Some(fault) = &manifest.fault {
                faults.entry(source.clone()).or_default().push(fault.clone());
            }
        }
        let manifests = self.manifests.iter().map(|(source, manifest)| (source, &manifest.pods));
        let mut owners = settle(manifests, &self.pods, &mut faults);
        let pods = unique(&self.pods, &owners, &mut faults);
        owners.retain(|_, owner| {
            pods.get(&owner.object.uid).is_some_and(|one| one.pod.key == owner.object.key)
        });
        self.pods = owners;

        let manifests = self.manifests.iter().map(|(source, manifest)| (source, &manifest.configs));
        let mut owners = settle(manifests, &self.configs, &mut faults);
        immutable::keep(&self.configs, &mut owners, &mut faults);
        let objects = owners.iter().map(|(key, owner)| (key.clone(), Arc::clone(&owner.object))).collect();
        self.configs = owners;

        self.problems = self.dated(faults, now);
        let problems = self.places.values().chain(self.problems.values()).cloned().collect();
        DesiredState { pods, configs: Configs { objects, complete }, problems }
    }

    fn dated(&self, faults: Faults, now: Timestamp) -> BTreeMap<ManifestSource, Problem> {
        let dated = |(source, messages): (ManifestSource, Vec<String>)| {
            let message = messages.join("\n");
            let before = self.problems.get(&source).filter(|before| before.message == message);
            let since = before.map_or(now, |before| before.since);
            (source.clone(), Problem { source, subject: Subject::Manifest, message, since })
        };
        faults.into_iter().map(dated).collect()
    }
}

impl Manifest {
    fn holds_something(&self) -> bool {
        !self.pods.objects.is_empty() || !self.configs.objects.is_empty()
    }

    fn replace(&mut self, found: Found, turn: u64) {
        self.pods.replace(found.pods, turn);
        self.configs.replace(found.configs, turn);
    }
}

/// The pods by UID. Two pods of different names may not have one `metadata.uid`; who has it keeps it.
fn unique(before: &Owners<Pod>, owners: &Owners<Pod>, faults: &mut Faults) -> BTreeMap<PodUid, Desired> {
    let mut pods: BTreeMap<PodUid, Desired> = BTreeMap::new();
    let held = |(key, owner): &(&PodKey, &Claim<Pod>)| {
        before.get(*key).is_some_and(|one| one.object.uid == owner.object.uid)
    };
    let (first, then): (Vec<_>, Vec<_>) = owners.iter().partition(held);
    for (_, Claim { object: pod, source }) in first.into_iter().chain(then) {
        match pods.get(&pod.uid) {
            None => {
                let desired = Desired { pod: Arc::clone(pod), source: source.clone() };
                pods.insert(pod.uid.clone(), desired);
            }
            Some(holder) => faults.entry(source.clone()).or_default().push(format!(
                "{source}: metadata.uid: Duplicate value: {:?}: pod {} in {} has it",
                pod.uid.as_str(),
                holder.pod.key,
                holder.source
            )),
        }
    }
    pods
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use coracle_model::{ConfigKey, ConfigKind, Name, PodSpec};

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

    fn path(name: &str) -> ManifestSource {
        Path::new("/m").join(format!("{name}.yaml")).into()
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
            self.found(file, Some(Ok(Found { pods: pods.to_vec(), configs: Vec::new() })))
        }

        fn configures(&mut self, file: &str, configs: &[ConfigObject]) -> DesiredState {
            let configs = configs.iter().cloned().map(Arc::new).collect();
            self.found(file, Some(Ok(Found { pods: Vec::new(), configs })))
        }

        fn found(&mut self, file: &str, found: Option<Result<Found, String>>) -> DesiredState {
            self.0.update_file(&path(file), found);
            self.0.resolve(true, at(0))
        }
    }

    #[test]
    fn an_invalid_file_takes_nothing_from_its_pods() {
        let mut test = Test(Catalog::default());
        assert_eq!(uids(&test.holds("a", &[pod("1", "web")])), ["1"]);
        for found in [Err("a.yaml:3: wrong".to_owned()), Ok(Found::default())] {
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
        assert_eq!(state.problems[0].source, path("a"));
    }

    pub(crate) fn config(name: &str, value: &str) -> ConfigObject {
        ConfigObject {
            key: ConfigKey {
                kind: ConfigKind::ConfigMap,
                namespace: Name::label("default").unwrap(),
                name: Name::label(name).unwrap(),
            },
            data: [("key".to_owned(), Arc::from(value.as_bytes()))].into(),
            binary_data: BTreeMap::new(),
            secret_type: String::new(),
            immutable: false,
        }
    }

    fn values(state: &DesiredState) -> Vec<&str> {
        state
            .configs
            .objects
            .values()
            .map(|object| std::str::from_utf8(&object.data["key"]).unwrap())
            .collect()
    }

    #[test]
    fn objects_are_claimed_as_pods_are() {
        let mut test = Test(Catalog::default());
        assert_eq!(values(&test.configures("b", &[config("web", "1")])), ["1"]);
        let state = test.configures("a", &[config("web", "2"), config("db", "3")]);
        assert_eq!(values(&state), ["3", "1"], "the earlier claimant has it");
        assert_eq!(state.problems.len(), 2);
        for (problem, other) in state.problems.iter().zip(["/m/b.yaml", "/m/a.yaml"]) {
            let expected = format!(
                "ConfigMap default/web is defined also in {other}; the ConfigMap from /m/b.yaml stays"
            );
            assert!(problem.message.contains(&expected), "{problem:?}");
        }
        assert_eq!(
            values(&test.found("a", Some(Err("wrong".to_owned())))),
            ["3", "1"],
            "invalid takes nothing"
        );
        assert_eq!(values(&test.found("b", None)), ["3", "2"]);
        assert_eq!(values(&test.found("a", Some(Ok(Found::default())))), ["3", "2"], "emptied takes nothing");
        let mut secret = config("web", "5");
        secret.key.kind = ConfigKind::Secret;
        let state = test.configures("b", &[secret]);
        assert_eq!(
            (values(&state), state.problems.len()),
            (vec!["3", "2", "5"], 1),
            "another kind, other names"
        );
    }

    #[test]
    fn a_file_may_hold_both_and_lose_its_pods() {
        let mut test = Test(Catalog::default());
        let both = Found { pods: vec![pod("1", "web")], configs: vec![Arc::new(config("web", "1"))] };
        let state = test.found("a", Some(Ok(both)));
        assert_eq!((uids(&state), values(&state)), (vec!["1"], vec!["1"]));
        let state = test.configures("a", &[config("web", "2")]);
        assert_eq!((uids(&state), values(&state), state.problems.len()), (vec![], vec!["2"], 0));
    }

    #[test]
    fn what_is_immutable_stays_until_it_is_removed() {
        let fixed = |value: &str| ConfigObject { immutable: true, ..config("web", value) };
        let mut test = Test(Catalog::default());
        test.configures("a", &[fixed("1")]);
        assert!(test.configures("a", &[fixed("1"), config("db", "2")]).problems.is_empty());
        let mut binary = fixed("1");
        binary.binary_data = [("more".to_owned(), Arc::from(&b"x"[..]))].into();
        for (changed, field) in [
            (fixed("3"), "data"),
            (binary, "binaryData"),
            (config("web", "1"), "immutable"),
            (config("web", "3"), "immutable"),
        ] {
            let state = test.configures("a", &[changed, config("db", "4")]);
            assert_eq!(values(&state), ["4", "1"], "the others of the file count");
            let expected = format!(
                "/m/a.yaml: ConfigMap default/web: {field}: Forbidden: field is immutable when `immutable` is set"
            );
            assert!(state.problems[0].message.starts_with(&expected), "{:?}", state.problems);
        }
        let state = test.configures("a", &[fixed("1")]);
        assert_eq!((values(&state), state.problems.len()), (vec!["1"], 0));
        test.found("a", None);
        assert_eq!(values(&test.configures("a", &[fixed("5")])), ["5"]);
        assert_eq!(values(&test.configures("a", &[config("db", "4")])), ["4"], "left out is removed");
        assert_eq!(values(&test.configures("a", &[fixed("6")])), ["6"]);
    }

    #[test]
    fn a_problem_keeps_its_time_while_it_lasts() {
        let mut catalog = Catalog::default();
        for (second, message, since) in [(1, "x", 1), (2, "x", 1), (3, "y", 3)] {
            catalog.update_file(&path("a"), Some(Err(message.to_owned())));
            assert_eq!(catalog.resolve(true, at(second)).problems[0].since, at(since));
        }
    }
}
