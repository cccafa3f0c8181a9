//! What must become of a pod whose processes are killed: kept beside the node, from Kubernetes' rules alone.

use std::time::Instant;

use serde_json::Value;

/// A pod's or a container's `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

/// What part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion first, once in every sandbox.
    Init,
    /// Runs beside the app containers for as long as the pod lives.
    Sidecar,
    App,
}

/// How a run of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGKILL.
    Killed,
    /// By itself, with this code.
    Code(i32),
    /// With its pause, which alone would know how.
    WithPause,
    /// The shared pid namespace ended: pause may have seen how, or was too late.
    WithNamespace,
    /// Asked to by the node, within its grace period or not.
    Asked,
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) policy: Policy,
    /// What its readiness probe must find in the end.
    pub(crate) ready: bool,
    /// The runs that ended and were, or will be, followed by another.
    pub(crate) restarts: u32,
    /// How the last run that ended did.
    pub(crate) last: Option<Ending>,
    /// Whether back-off came before the run that follows.
    pub(crate) backs_off: bool,
    /// It is not started again.
    pub(crate) over: bool,
    /// The run that is known to be there and to do its work, as long as nothing was done to it since.
    pub(crate) id: Option<String>,
}

/// A pod.
pub(crate) struct Pod {
    pub(crate) kind: usize,
    pub(crate) name: String,
    pub(crate) members: Vec<Member>,
    pub(crate) uid: Option<String>,
    history: Vec<(Instant, String)>,
}

// === impl Policy ===

impl Policy {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

// === impl Ending ===

impl Ending {
    fn succeeded(self) -> bool {
        matches!(self, Self::Code(0) | Self::Asked)
    }

    /// Whether a container status tells it so.
    fn is(self, terminated: &Value) -> bool {
        let (code, reason) = (&terminated["exitCode"], terminated["reason"].as_str().unwrap_or_default());
        let killed = *code == 137 && reason == "Error" && terminated["signal"] == 9;
        let unknown = *code == 137 && reason == "ContainerStatusUnknown";
        match self {
            Self::Killed => killed,
            Self::Code(0) => *code == 0 && reason == "Completed",
            Self::Code(expected) => *code == expected && reason == "Error",
            Self::WithPause => unknown,
            Self::WithNamespace => unknown || killed,
            Self::Asked => killed || *code == 0 && reason == "Completed",
        }
    }
}

// === impl Member ===

impl Member {
    pub(crate) fn new(name: &'static str, role: Role, policy: Policy) -> Self {
        Self {
            name,
            role,
            policy,
            ready: true,
            restarts: 0,
            last: None,
            backs_off: false,
            over: false,
            id: None,
        }
    }

    /// The delay in seconds before the run that is, or will be, the present one.
    pub(crate) fn back_off(&self) -> u64 {
        match self.restarts {
            _ if !self.backs_off => 0,
            0 | 1 => 0,
            restarts => 300.min(10 << (restarts - 2).min(5)),
        }
    }

    fn ends(&mut self, ending: Ending, probe_failed: bool) {
        let restarts = match (self.role, self.policy) {
            (Role::Sidecar, _) | (Role::App, Policy::Always) => true,
            (Role::App, Policy::OnFailure) => probe_failed || !ending.succeeded(),
            (Role::App, Policy::Never) => false,
            // As long as it is in the same sandbox; nothing here ends one that runs.
            (Role::Init, _) => false,
        };
        self.id = None;
        self.last = Some(ending);
        self.backs_off = true;
        self.restarts += u32::from(restarts);
        self.over |= !restarts;
    }

    fn check(&self, pod: &Value, pod_over: bool) -> Result<(), String> {
        let Some(status) = status(pod, self.name) else { return Err("has no status".to_owned()) };
        let count = &status["restartCount"];
        if *count != self.restarts {
            return Err(format!("was restarted {} times and not {count}", self.restarts));
        }
        let state = &status["state"];
        let terminated = |state: &Value, as_it: Option<Ending>| {
            let state = &state["terminated"];
            if state.is_object() && as_it.is_none_or(|ending| ending.is(state)) {
                Ok(())
            } else {
                Err(format!("ended as {as_it:?}, and is told as {status}"))
            }
        };
        if self.role == Role::Init {
            return terminated(state, Some(Ending::Code(0)));
        }
        if self.over {
            return terminated(state, self.last);
        }
        if pod_over {
            return terminated(state, Some(Ending::Asked));
        }
        if !state["running"].is_object() || status["started"] != true || status["ready"] != self.ready {
            return Err(format!("runs, ready: {}; and is told as {status}", self.ready));
        }
        self.last.map_or(Ok(()), |last| terminated(&status["lastState"], Some(last)))?;
        self.check_delay(status)
    }

    /// Whether it was started when its back-off allowed it, as the status tells it in whole seconds.
    fn check_delay(&self, status: &Value) -> Result<(), String> {
        let ended = seconds_of_day(&status["lastState"]["terminated"]["finishedAt"]);
        let (Some(ended), Some(started)) = (ended, seconds_of_day(&status["state"]["running"]["startedAt"]))
        else {
            return Ok(());
        };
        let delay = (started + DAY - ended) % DAY;
        let due = self.back_off();
        // An agent was killed perhaps, or the machine is busy: late is no mistake, far too late is.
        if delay + 1 < due || delay > due + 60 {
            return Err(format!("was due {due} s after its end and started {delay} s after it: {status}"));
        }
        Ok(())
    }
}

// === impl Pod ===

impl Pod {
    pub(crate) fn new(kind: usize, name: &str, members: Vec<Member>) -> Self {
        Self { kind, name: name.to_owned(), members, uid: None, history: Vec::new() }
    }

    /// What was done to it, for whoever has to find out what went wrong.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.history.push((Instant::now(), what.into()));
    }

    pub(crate) fn history(&self) -> String {
        let line =
            |(at, what): &(Instant, String)| format!("    {:.1} s ago: {what}\n", at.elapsed().as_secs_f64());
        self.history.iter().map(line).collect()
    }

    /// No app container runs or will.
    pub(crate) fn is_over(&self) -> bool {
        self.members.iter().filter(|member| member.role == Role::App).all(|member| member.over)
    }

    /// All that is to run does, and nothing was done to it since that was seen.
    pub(crate) fn is_settled(&self) -> bool {
        let mut running = self.members.iter().filter(|member| member.role != Role::Init && !member.over);
        !self.is_over() && running.all(|member| member.id.is_some())
    }

    /// The run of one of its containers ended.
    pub(crate) fn member_ended(&mut self, member: usize, ending: Ending, probe_failed: bool) {
        self.members[member].ends(ending, probe_failed);
        if self.is_over() {
            self.members.iter_mut().for_each(|member| member.id = None);
        }
    }

    /// Its sandbox died, with all that ran in it. (A pod of these with init containers gets another.)
    pub(crate) fn sandbox_died(&mut self, ending: Ending) {
        let running: Vec<_> =
            self.members.iter_mut().filter(|it| it.role != Role::Init && !it.over).collect();
        for member in running {
            member.ends(ending, false);
            // Only app containers wait before they start in a new sandbox.
            member.backs_off = member.role == Role::App;
        }
        let inits = self.members.iter_mut().filter(|member| member.role == Role::Init);
        inits.for_each(|init| init.restarts += 1);
    }

    /// Whether the pod is what it must be in the end.
    pub(crate) fn check(&self, pod: &Value) -> Result<(), String> {
        let over = self.is_over();
        for member in &self.members {
            member.check(pod, over).map_err(|error| format!("container {} {error}", member.name))?;
        }
        let succeeded = |member: &&Member| member.last.is_some_and(Ending::succeeded);
        let apps = || self.members.iter().filter(|member| member.role == Role::App);
        let phase = match over {
            false => "Running",
            true if apps().filter(succeeded).count() == apps().count() => "Succeeded",
            true => "Failed",
        };
        if pod["status"]["phase"] != phase {
            return Err(format!("is {phase}, and is told as {}", pod["status"]["phase"]));
        }
        let ready = self.members.iter().filter(|it| it.role != Role::Init).all(|it| it.ready && !it.over);
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let told = conditions.find(|condition| condition["type"] == "Ready").map(|ready| &ready["status"]);
        if told.is_none_or(|told| *told != if ready && !over { "True" } else { "False" }) {
            return Err(format!("is ready: {ready}, and is told as {}", pod["status"]["conditions"]));
        }
        Ok(())
    }

    /// What must hold at every moment: no container was restarted that did not end.
    pub(crate) fn check_bounds(&self, pod: &Value) -> Result<(), String> {
        for member in &self.members {
            let count = status(pod, member.name).and_then(|status| status["restartCount"].as_u64());
            if count.is_some_and(|count| count > u64::from(member.restarts)) {
                return Err(format!(
                    "container {} was restarted {} times and not {count:?}",
                    member.name, member.restarts
                ));
            }
        }
        Ok(())
    }
}

/// The status of a container, if there is one.
pub(crate) fn status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = [&pod["status"]["containerStatuses"], &pod["status"]["initContainerStatuses"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.find(|status| status["name"] == container)
}

const DAY: u64 = 24 * 60 * 60;

/// The time of day of a time in RFC 3339 in UTC, to the second.
fn seconds_of_day(time: &Value) -> Option<u64> {
    let (_, clock) = time.as_str()?.split_once('T')?;
    let mut parts = clock.trim_end_matches('Z').split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some((hours * 3600.0 + minutes * 60.0 + seconds) as u64)
}
