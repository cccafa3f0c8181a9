//! What the manifests say, and who of several claimants has a namespace and name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use coracle_model::{ConfigObject, Pod, PodKey, PodUid};
use jiff::Timestamp;

use crate::claims::{Claim, Definitions, Faults, Owners, settle};
use crate::immutable;
use crate::{Desired, DesiredState, Found, Problem};

/// All manifests of a source, as they were last understood.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    files: BTreeMap<Arc<Path>, File>,
    /// Who has a namespace and name now.
    pods: Owners<Pod>,
    configs: Owners<ConfigObject>,
    /// What was wrong when it was last resolved, so that a lasting problem keeps its time.
    problems: BTreeMap<Arc<Path>, Problem>,
    /// What is wrong with the directory itself.
    place: Option<Problem>,
    turn: u64,
}

#[derive(Debug, Default)]
struct File {
    /// What it held when it was last valid.
    pods: Definitions<Pod>,
    configs: Definitions<ConfigObject>,
    /// What is wrong with it now.
    fault: Option<String>,
}

impl Catalog {
    /// Starts from the pods that run already, so that a file that is invalid now takes nothing from them.
    pub(crate) fn from_known(known: impl IntoIterator<Item = Desired>) -> Self {
        let mut catalog = Self::default();
        for Desired { pod, source } in known {
            catalog.files.entry(Arc::clone(&source)).or_default().pods.add_known(Arc::clone(&pod));
            catalog.pods.insert(pod.key.clone(), Claim { object: pod, source });
        }
        catalog
    }

    /// Takes in what a file holds now; `None` when it is not there.
    pub(crate) fn update(&mut self, path: &Arc<Path>, found: Option<Result<Found, String>>) {
        self.turn += 1;
        let Some(found) = found else {
            self.files.remove(path);
            return;
        };
        let file = self.files.entry(Arc::clone(path)).or_default();
        match found {
            Ok(found) if found.is_empty() && file.holds_something() => {
                file.fault = Some(format!(
                    "{}: the file is empty now; what it held is left alone (remove the file to end its pods)",
                    path.display()
                ));
            }
            Ok(found) => {
                file.fault =
                    found.is_empty().then(|| format!("{}: the file holds no object", path.display()));
                file.pods.replace(found.pods, self.turn);
                file.configs.replace(found.configs, self.turn);
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

    /// Whether anything is defined.
    pub(crate) fn holds_something(&self) -> bool {
        self.files.values().any(File::holds_something)
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
        let mut faults = Faults::new();
        for (path, file) in &self.files {
            if let Some(fault) = &file.fault {
                faults.entry(Arc::clone(path)).or_default().push(fault.clone());
            }
        }
        let mut owners =
            settle(self.files.iter().map(|(path, file)| (path, &file.pods)), &self.pods, &mut faults);
        let pods = unique(&self.pods, &owners, &mut faults);
        owners.retain(|_, owner| {
            pods.get(&owner.object.uid).is_some_and(|one| one.pod.key == owner.object.key)
        });
        self.pods = owners;

        let files = self.files.iter().map(|(path, file)| (path, &file.configs));
        let mut owners = settle(files, &self.configs, &mut faults);
        immutable::keep(&self.configs, &mut owners, &mut faults);
        let configs = owners.iter().map(|(key, owner)| (key.clone(), Arc::clone(&owner.object))).collect();
        self.configs = owners;

        self.problems = self.dated(faults, now);
        let problems = self.place.iter().chain(self.problems.values()).cloned().collect();
        DesiredState { pods, configs, problems }
    }

    fn dated(&self, faults: Faults, now: Timestamp) -> BTreeMap<Arc<Path>, Problem> {
        let dated = |(path, messages): (Arc<Path>, Vec<String>)| {
            let message = messages.join("\n");
            let before = self.problems.get(&path).filter(|before| before.message == message);
            let since = before.map_or(now, |before| before.since);
            (Arc::clone(&path), Problem { path, message, since })
        };
        faults.into_iter().map(dated).collect()
    }
}

impl File {
    fn holds_something(&self) -> bool {
        !self.pods.objects.is_empty() || !self.configs.objects.is_empty()
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
                let desired = Desired { pod: Arc::clone(pod), source: Arc::clone(source) };
                pods.insert(pod.uid.clone(), desired);
            }
            Some(holder) => faults.entry(Arc::clone(source)).or_default().push(format!(
                "{}: metadata.uid: Duplicate value: {:?}: pod {} in {} has it",
                source.display(),
                pod.uid.as_str(),
                holder.pod.key,
                holder.source.display()
            )),
        }
    }
    pods
}

#[cfg(test)]
pub(crate) mod tests {
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
            self.found(file, Some(Ok(Found { pods: pods.to_vec(), configs: Vec::new() })))
        }

        fn configures(&mut self, file: &str, configs: &[ConfigObject]) -> DesiredState {
            let configs = configs.iter().cloned().map(Arc::new).collect();
            self.found(file, Some(Ok(Found { pods: Vec::new(), configs })))
        }

        fn found(&mut self, file: &str, found: Option<Result<Found, String>>) -> DesiredState {
            self.0.update(&path(file), found);
            self.0.resolve(at(0))
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
        assert_eq!(state.problems[0].path, path("a"));
    }

    fn config(name: &str, value: &str) -> ConfigObject {
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
        state.configs.values().map(|object| std::str::from_utf8(&object.data["key"]).unwrap()).collect()
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
            catalog.update(&path("a"), Some(Err(message.to_owned())));
            assert_eq!(catalog.resolve(at(second)).problems[0].since, at(since));
        }
    }
}
