//! A VM with Coracle installed as a service, spoken to as its administrator would.

use std::time::{Duration, Instant};

use coracle_tests::images::BUSYBOX;
use coracle_tests::vm::Vm;
use coracle_tests::wait::patience;
use serde_json::Value;

/// How long a pod may take for what it should do soon: an emulated machine takes its time.
pub(crate) const SOON: Duration = Duration::from_secs(180);

/// A host of pods.
pub(crate) struct Host {
    pub(crate) vm: Vm,
}

// === impl Host ===

impl Host {
    /// Installs Coracle's package, has the agent read this configuration, and imports the image of busybox.
    pub(crate) fn install(mut vm: Vm, configuration: &str) -> Self {
        vm.ok("dpkg --install /payload/coracle_*-1_*.deb");
        if !configuration.is_empty() {
            vm.put("/etc/coracle/config.yaml", configuration);
            vm.ok("systemctl restart coracle");
        }
        vm.ok(&format!("coracle image import /payload/busybox.tar --name {BUSYBOX} && sync"));
        Self { vm }
    }

    /// Runs a pod from a manifest named after it.
    pub(crate) fn run(&mut self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        self.vm.put(&format!("/etc/coracle/manifests/{name}.yaml"), pod.to_string());
    }

    /// Every pod, as `get pods` shows it; none while the agent does not answer.
    pub(crate) fn pods(&mut self) -> Vec<Value> {
        let answer = self.vm.run("coracle get pods --all-namespaces --output json 2>/dev/null");
        let list: Value = serde_json::from_slice(&answer.output).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a pod is as wanted; the pod.
    #[track_caller]
    pub(crate) fn wait_pod(&mut self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + SOON * patience();
        loop {
            let pods = self.pods();
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
            if let Some(pod) = pod.filter(|pod| wanted(pod)) {
                return pod.clone();
            }
            assert!(Instant::now() < end, "waited {SOON:?} in vain for pod {name} {what}; seen: {pods:#?}");
        }
    }

    /// Waits until all containers of a pod run, each restarted so often.
    #[track_caller]
    pub(crate) fn wait_running(&mut self, name: &str, restarts: i64) -> Value {
        self.wait_pod(name, &format!("to run, restarted {restarts} times"), |pod| {
            let statuses = pod["status"]["containerStatuses"].as_array();
            statuses.is_some_and(|all| {
                let as_wanted =
                    |one: &Value| one["state"]["running"].is_object() && one["restartCount"] == restarts;
                !all.is_empty() && all.iter().all(as_wanted)
            })
        })
    }

    /// The only containers of these pods, all of which run, each restarted so often.
    #[track_caller]
    pub(crate) fn containers(&mut self, pods: &[&str], restarts: i64) -> Vec<Value> {
        let all = pods.iter().map(|name| self.wait_running(name, restarts));
        all.map(|pod| pod["status"]["containerStatuses"][0]["containerID"].clone()).collect()
    }

    /// Waits until the pods are these and no others.
    #[track_caller]
    pub(crate) fn wait_pods(&mut self, names: &[&str]) {
        let end = Instant::now() + SOON * patience();
        loop {
            let pods = self.pods();
            let mut seen: Vec<_> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            seen.sort_unstable();
            if seen == names {
                return;
            }
            assert!(Instant::now() < end, "waited {SOON:?} in vain for pods {names:?} alone; seen: {seen:?}");
        }
    }

    /// Waits until the log of a pod's only container is this.
    #[track_caller]
    pub(crate) fn wait_log(&mut self, name: &str, text: &str) {
        let command =
            format!("coracle logs {name} 2>&1 | tee /run/log-seen; [ \"$(< /run/log-seen)\" = '{text}' ]");
        self.vm.wait(&format!("the log of pod {name}"), SOON, &command);
    }
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
