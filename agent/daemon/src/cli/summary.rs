//! A pod in one line: kubectl's READY, STATUS and RESTARTS.

use coracle_server::client::{Container, ContainerState, Pod, Terminated};
use jiff::Timestamp;

use super::age::age;
use super::style::Style;

/// What of a pod fits on a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Ready containers of all but init containers that come to an end.
    pub(crate) ready: (usize, usize),
    /// The most telling word.
    pub(crate) status: String,
    restarts: u32,
    last_restart: Option<Timestamp>,
}

// === impl Summary ===

impl Summary {
    /// The rules are those of kubectl's pod printer: the first init container that is not done speaks for
    /// the pod; after them, the first container that waits or ended.
    pub(crate) fn of(pod: &Pod) -> Self {
        let sidecars = pod.spec.init_containers.iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            ready: (0, pod.spec.containers.len() + sidecars),
            status: if pod.status.reason.is_empty() {
                pod.status.phase.clone()
            } else {
                pod.status.reason.clone()
            },
            restarts: 0,
            last_restart: None,
        };
        let initialized =
            pod.status.conditions.iter().any(|it| it.r#type == "Initialized" && it.status == "True");
        let initializing = summary.initialize(pod);
        if !initializing || initialized {
            summary.run(pod);
        }
        let terminal = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        if pod.metadata.deletion_timestamp.is_some() && !terminal {
            summary.status = "Terminating".to_owned();
        }
        summary
    }

    /// `2 (5m ago)`.
    pub(crate) fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts > 0 => format!("{} ({} ago)", self.restarts, age(Some(last), now)),
            _ => self.restarts.to_string(),
        }
    }

    pub(crate) fn style(&self) -> Style {
        match self.status.as_str() {
            "Running" | "Completed" | "Succeeded"
                if self.ready.0 == self.ready.1 || self.status != "Running" =>
            {
                Style::Good
            }
            "Running" | "Pending" | "ContainerCreating" | "PodInitializing" | "Terminating" | "NotReady" => {
                Style::Pending
            }
            status
                if status.starts_with("Init:")
                    && status.as_bytes().get(5).is_some_and(u8::is_ascii_digit) =>
            {
                Style::Pending
            }
            _ => Style::Bad,
        }
    }

    /// Whether an init container is not done: it has not ended well, or is a sidecar that has not started.
    fn initialize(&mut self, pod: &Pod) -> bool {
        for (index, container) in pod.status.init_container_statuses.iter().enumerate() {
            self.count(container.restart_count, &container.last_state);
            let state = &container.state;
            self.status = match (&state.terminated, &state.waiting) {
                (Some(ended), _) if ended.exit_code == 0 => continue,
                _ if container.started == Some(true) && sidecar(pod, &container.name) => {
                    self.ready.0 += usize::from(container.ready);
                    continue;
                }
                (Some(ended), _) => format!("Init:{}", why(ended)),
                (None, Some(waiting)) if !matches!(waiting.reason.as_str(), "" | "PodInitializing") => {
                    format!("Init:{}", waiting.reason)
                }
                _ => format!("Init:{index}/{}", pod.spec.init_containers.len()),
            };
            return true;
        }
        false
    }

    fn run(&mut self, pod: &Pod) {
        (self.restarts, self.last_restart) = (0, None);
        for container in &pod.status.init_container_statuses {
            if sidecar(pod, &container.name) {
                self.count(container.restart_count, &container.last_state);
            }
        }
        let mut runs = false;
        for container in pod.status.container_statuses.iter().rev() {
            self.count(container.restart_count, &container.last_state);
            match &container.state {
                ContainerState { waiting: Some(waiting), .. } if !waiting.reason.is_empty() => {
                    self.status.clone_from(&waiting.reason);
                }
                ContainerState { terminated: Some(ended), .. } => self.status = why(ended),
                ContainerState { running: Some(_), .. } if container.ready => {
                    runs = true;
                    self.ready.0 += 1;
                }
                _ => {}
            }
        }
        if self.status == "Completed" && runs {
            let ready = pod.status.conditions.iter().any(|it| it.r#type == "Ready" && it.status == "True");
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn count(&mut self, restarts: u32, last: &ContainerState) {
        self.restarts += restarts;
        let ended = last.terminated.as_ref().and_then(|ended| ended.finished_at);
        self.last_restart = self.last_restart.max(ended);
    }
}

fn sidecar(pod: &Pod, name: &str) -> bool {
    pod.spec.init_containers.iter().any(|container| container.name == name && is_sidecar(container))
}

fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

fn why(ended: &Terminated) -> String {
    match (ended.reason.as_str(), ended.signal) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn summary(inits: &[Value], containers: &[Value], more: Value) -> (String, String, String) {
        // Statuses, each with a name of its own; `restartPolicy` is the specification's.
        let named = |list: &[Value]| -> Value {
            let one = |(at, status): (usize, &Value)| json!({"name": at.to_string(), "restartPolicy": status["restartPolicy"]});
            list.iter().enumerate().map(one).collect()
        };
        let inits: Vec<Value> = inits
            .iter()
            .enumerate()
            .map(|(at, status)| {
                let mut status = status.clone();
                status["name"] = json!(at.to_string());
                status
            })
            .collect();
        let inits = inits.as_slice();
        let mut pod = json!({
            "metadata": {},
            "spec": {"initContainers": named(inits), "containers": named(containers)},
            "status": {"phase": "Pending", "initContainerStatuses": inits, "containerStatuses": containers},
        });
        for (key, value) in more.as_object().unwrap() {
            match key.as_str() {
                "deletionTimestamp" => pod["metadata"][key] = value.clone(),
                _ => pod["status"][key] = value.clone(),
            }
        }
        let summary = Summary::of(&serde_json::from_value(pod).unwrap());
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let (ready, all) = summary.ready;
        (format!("{ready}/{all}"), summary.status.clone(), summary.restarts(now))
    }

    fn line(text: &str) -> (String, String, String) {
        let mut parts = text.splitn(3, ' ').map(str::to_owned);
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
    }

    #[test]
    fn status_is_the_most_telling_word() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let ended =
            |code: i32, reason: &str| json!({"state": {"terminated": {"exitCode": code, "reason": reason}}});
        let again = json!({"ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}});
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let none = json!({});
        let initialized =
            json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}]});
        let sidecar = |started: bool, ready: bool| {
            json!({"restartPolicy": "Always", "started": started, "ready": ready, "restartCount": 3,
                "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}})
        };
        let cases = [
            (vec![], vec![running.clone(), running.clone()], json!({"phase": "Running"}), "2/2 Running 0"),
            (vec![], vec![again.clone()], json!({"phase": "Running"}), "1/1 Running 2 (5m ago)"),
            (vec![], vec![], none.clone(), "0/0 Pending 0"),
            (vec![], vec![waiting("ContainerCreating")], none.clone(), "0/1 ContainerCreating 0"),
            (
                vec![],
                vec![running.clone(), waiting("CrashLoopBackOff")],
                none.clone(),
                "1/2 CrashLoopBackOff 0",
            ),
            (vec![], vec![ended(0, "Completed")], json!({"phase": "Succeeded"}), "0/1 Completed 0"),
            (vec![], vec![ended(137, "OOMKilled")], json!({"phase": "Failed"}), "0/1 OOMKilled 0"),
            (vec![], vec![ended(3, "")], json!({"phase": "Failed"}), "0/1 ExitCode:3 0"),
            (vec![], vec![running.clone(), ended(0, "Completed")], ready, "1/2 Running 0"),
            (vec![], vec![running.clone(), ended(0, "Completed")], none.clone(), "1/2 NotReady 0"),
            (
                vec![json!({"state": {"running": {}}})],
                vec![waiting("PodInitializing")],
                none.clone(),
                "0/1 Init:0/1 0",
            ),
            (
                vec![ended(0, "Completed"), waiting("PodInitializing")],
                vec![waiting("PodInitializing")],
                none.clone(),
                "0/1 Init:1/2 0",
            ),
            (vec![ended(1, "Error")], vec![waiting("PodInitializing")], none.clone(), "0/1 Init:Error 0"),
            (
                vec![waiting("CrashLoopBackOff")],
                vec![waiting("PodInitializing")],
                none.clone(),
                "0/1 Init:CrashLoopBackOff 0",
            ),
            (
                vec![ended(0, "Completed")],
                vec![running.clone()],
                json!({"phase": "Running"}),
                "1/1 Running 0",
            ),
            (
                vec![],
                vec![running.clone()],
                json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
                "1/1 Terminating 0",
            ),
            (vec![], vec![], json!({"phase": "Failed", "reason": "Evicted"}), "0/0 Evicted 0"),
            (vec![sidecar(true, true)], vec![running.clone()], initialized.clone(), "2/2 Running 3 (5m ago)"),
            (
                vec![sidecar(true, false)],
                vec![running.clone()],
                initialized.clone(),
                "1/2 Running 3 (5m ago)",
            ),
            (
                vec![sidecar(true, true), json!({"state": {"running": {}}})],
                vec![waiting("PodInitializing")],
                none.clone(),
                "1/2 Init:1/2 3 (5m ago)",
            ),
            (
                vec![sidecar(false, false)],
                vec![waiting("PodInitializing")],
                none.clone(),
                "0/2 Init:0/1 3 (5m ago)",
            ),
            (
                vec![json!({"restartPolicy": "Always", "started": false, "state": {"terminated":
                    {"exitCode": 137, "reason": "Error"}}})],
                vec![ended(0, "Completed")],
                json!({"phase": "Succeeded", "conditions": [{"type": "Initialized", "status": "True"}]}),
                "0/2 Completed 0",
            ),
        ];
        for (inits, containers, more, expected) in cases {
            assert_eq!(summary(&inits, &containers, more), line(expected));
        }
    }
}
