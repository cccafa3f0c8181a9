//! The soak itself: what is done to the pods, at random, and what is looked at.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_tests::node::{Node, uid};
use coracle_tests::processes::{self, Pid};
use coracle_tests::random::Random;
use coracle_tests::wait::{SOON, deadline, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::images::Images;
use crate::kinds;
use crate::model::{Ending, Member, Pod, Role, status};

/// A container that was ended so often waits longer than a run of minutes has: its pod is replaced.
const MOST_RESTARTS: u32 = 3;
/// How often the node is looked at while things are done to it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What was done, and how often.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, usize>);

pub(crate) struct Soak {
    pub(crate) node: Node,
    pub(crate) pods: Vec<Pod>,
    pub(crate) tally: Tally,
    images: Images,
    random: Random,
    /// How many pods there were.
    made: usize,
    /// Containers whose liveness probe fails, until it has ended them.
    failing: Vec<(String, usize, OwnedFd)>,
    looked: Instant,
}

impl Soak {
    /// A node with so many pods.
    pub(crate) fn start(pods: usize) -> Self {
        let random = Random::new();
        let node = Node::start();
        let images = Images::start(&node);
        fs::create_dir(node.path("ran")).expect("the machine's directory is writable");
        let mut soak = Self {
            node,
            pods: Vec::new(),
            tally: Tally::default(),
            images,
            random,
            made: 0,
            failing: Vec::new(),
            looked: Instant::now(),
        };
        for index in 0..pods {
            let pod = soak.make(index);
            soak.pods.push(pod);
        }
        soak
    }

    fn make(&mut self, kind: usize) -> Pod {
        let name = format!("p{}", self.made);
        self.made += 1;
        let (pod, manifest) = kinds::make(kind, &name, &self.node.path("ran"));
        self.node.run(&manifest);
        pod
    }

    /// Does things to pods, and to the agent if that is to be, until the time has come.
    pub(crate) fn storm(&mut self, end: Instant, with_agent: bool) {
        while Instant::now() < end {
            match self.random.below(if with_agent { 44 } else { 42 }) {
                0..26 => self.kill_container(),
                26..31 => self.kill_sandbox(),
                31..34 => self.fail_liveness(),
                34..38 => self.replace_pod(),
                38..42 => {
                    let what = self.images.disturb(&self.node, &mut self.random);
                    self.tally.count(what);
                }
                _ => self.kill_agent(),
            }
            std::thread::sleep(Duration::from_micros(self.random.below(120_000)));
            self.follow_failing();
            if self.looked.elapsed() > LOOK_EVERY {
                self.look();
            }
        }
    }

    // --- What is done ---

    /// The containers that may be ended: pod and member.
    fn victims(&self) -> Vec<(usize, usize)> {
        let mut victims = Vec::new();
        for (index, pod) in self.pods.iter().enumerate() {
            // Sidecars end with their pod, whatever they were about to do: those are ended one at a time.
            let has_sidecar = pod.members.iter().any(|member| member.role == Role::Sidecar);
            if self.is_failing(&pod.name) || has_sidecar && !pod.is_settled() {
                continue;
            }
            let may_end = |member: &Member| member.id.is_some() && member.restarts < MOST_RESTARTS;
            let members = pod.members.iter().enumerate().filter(|(_, member)| may_end(member));
            victims.extend(members.map(|(member, _)| (index, member)));
        }
        victims
    }

    fn is_failing(&self, pod: &str) -> bool {
        self.failing.iter().any(|(failing, ..)| failing == pod)
    }

    fn kill_container(&mut self) {
        let Some((index, member)) = self.random.one_of(&self.victims()).copied() else { return };
        let (signal, ending) = match self.random.below(4) {
            0 => (Signal::USR1, Ending::Code(7)),
            1 => (Signal::USR2, Ending::Code(0)),
            _ => (Signal::KILL, Ending::Killed),
        };
        let Some((_, process)) = self.process(index, member) else { return self.tally.count("missed") };
        let pod = &mut self.pods[index];
        pod.note(format!("container {} ends as {ending:?}", pod.members[member].name));
        if pidfd_send_signal(&process, signal).is_err() {
            panic!("{}: a container ended by itself\n{}{}", pod.name, pod.history(), self.node.agent_log());
        }
        wait_ended(&process, &pod.name);
        pod.member_ended(member, ending, false);
        self.tally.count("containers ended");
    }

    fn kill_sandbox(&mut self) {
        let settled = |pod: &&(usize, &Pod)| {
            pod.1.is_settled()
                && !self.is_failing(&pod.1.name)
                && pod.1.members.iter().all(|member| member.restarts < MOST_RESTARTS)
        };
        let settled: Vec<_> = self.pods.iter().enumerate().filter(|it| settled(&it)).map(|it| it.0).collect();
        let Some(index) = self.random.one_of(&settled).copied() else { return };
        let cgroup = format!("pod{}", self.pods[index].uid.as_deref().expect("it was seen"));
        let all = self.node.machine().cgroups().processes(&cgroup);
        let pauses: Vec<Pid> =
            all.into_iter().filter(|pid| processes::name(*pid).starts_with("pause")).collect();
        let outside = processes::namespace(self.node.machine().init(), "pid");
        let (outer, inner): (Vec<Pid>, Vec<Pid>) =
            pauses.into_iter().partition(|pid| processes::namespace(*pid, "pid") == outside);
        assert_eq!(outer.len(), 1, "{}: one pause per pod", self.pods[index].name);
        // The first process of a shared pid namespace is a second thing to lose.
        let (victim, ending) = match inner.first() {
            Some(inner) if self.random.below(2) == 0 => (*inner, Ending::WithNamespace),
            _ => (outer[0], Ending::WithPause),
        };
        let pod = &mut self.pods[index];
        pod.note(format!("its sandbox dies: {ending:?}"));
        processes::kill(victim);
        wait_until(format_args!("pause of {} to end", pod.name), SOON, || !processes::is_alive(victim));
        pod.sandbox_died(ending);
        self.tally.count("sandboxes ended");
    }

    fn fail_liveness(&mut self) {
        let mut victims = self.victims();
        // Every other container has a liveness probe.
        let is_probed = |pod: &Pod, member: &Member| {
            !matches!((pod.kind % kinds::KINDS, member.name), (5, "b") | (6, "c"))
        };
        victims.retain(|(index, member)| is_probed(&self.pods[*index], &self.pods[*index].members[*member]));
        victims.retain(|(index, _)| self.pods[*index].is_settled());
        let Some((index, member)) = self.random.one_of(&victims).copied() else { return };
        let Some((pid, process)) = self.process(index, member) else { return self.tally.count("missed") };
        let alive = PathBuf::from(format!("/proc/{pid}/root")).join(kinds::ALIVE);
        let pod = &mut self.pods[index];
        pod.note(format!("the liveness probe of container {} begins to fail", pod.members[member].name));
        fs::remove_file(&alive)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", alive.display(), pod.history()));
        self.failing.push((pod.name.clone(), member, process));
        self.tally.count("liveness probes failed");
    }

    /// Notes which containers their liveness probes have ended.
    fn follow_failing(&mut self) {
        let failing = std::mem::take(&mut self.failing);
        for (name, member, process) in failing {
            if !has_ended(&process, Duration::ZERO) {
                self.failing.push((name, member, process));
            } else if let Some(pod) = self.pods.iter_mut().find(|pod| pod.name == name) {
                pod.note(format!("its liveness probe has ended container {}", pod.members[member].name));
                pod.member_ended(member, Ending::Asked, true);
            }
        }
    }

    /// Takes a pod away, one that has come to its end or has to wait long if there is one, and puts another of its
    /// kind in its place.
    fn replace_pod(&mut self) {
        let worn = |pod: &Pod| pod.is_over() || pod.members.iter().any(|it| it.restarts >= MOST_RESTARTS);
        let worn: Vec<_> = self.pods.iter().enumerate().filter(|it| worn(it.1)).map(|it| it.0).collect();
        let all: Vec<_> = (0..self.pods.len()).collect();
        let index = *self.random.one_of(if worn.is_empty() { &all } else { &worn }).expect("there are pods");
        self.replace(index);
    }

    fn replace(&mut self, index: usize) {
        let new = self.make(self.pods[index].kind);
        let old = std::mem::replace(&mut self.pods[index], new);
        self.node.remove(&old.name);
        self.failing.retain(|(name, ..)| *name != old.name);
        self.tally.count("pods replaced");
    }

    /// Kills the agent, now and then again while the next takes over; meanwhile other things happen.
    fn kill_agent(&mut self) {
        self.node.kill_agent();
        self.tally.count("agents killed");
        for _ in 0..self.random.below(5) {
            match self.random.below(8) {
                0 => self.kill_sandbox(),
                1 => self.replace_pod(),
                _ => self.kill_container(),
            }
        }
        if self.random.below(3) == 0 {
            self.node.launch_agent();
            std::thread::sleep(Duration::from_micros(self.random.below(800_000)));
            self.node.kill_agent();
            self.tally.count("agents killed");
        }
        self.node.start_agent();
    }

    /// The first process of a container that is known to run, and a descriptor of it.
    fn process(&self, index: usize, member: usize) -> Option<(Pid, OwnedFd)> {
        let id = self.pods[index].members[member].id.as_deref()?;
        let cgroup = self.node.machine().cgroups().file(id, "cgroup.procs")?;
        let read = || -> std::collections::BTreeSet<Pid> {
            let text = fs::read_to_string(&cgroup).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        let pid = processes::oldest(&read())?;
        let descriptor = pidfd_open(rustix::process::Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Its number may have become another's before the descriptor was had, not since.
        read().contains(&pid).then_some((pid, descriptor))
    }

    // --- What is looked at ---

    /// Every pod as the API shows it, by name.
    fn seen(&self) -> BTreeMap<String, Value> {
        let answer = self.node.http_get("/pods").expect("the agent answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let list: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"));
        let pods = list["items"].as_array().cloned().unwrap_or_default().into_iter();
        pods.map(|pod| (pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(), pod)).collect()
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        let seen = self.seen();
        // What is seen to be started again has ended before, and perhaps only just.
        self.follow_failing();
        let ran = self.node.path("ran");
        for pod in &mut self.pods {
            let Some(found) = seen.get(&pod.name) else { continue };
            if let Err(error) = pod.check_bounds(found) {
                panic!(
                    "{}: {error}\n{}{:#}\n{}",
                    pod.name,
                    pod.history(),
                    found["status"],
                    self.node.agent_log()
                );
            }
            pod.uid = Some(uid(found).to_owned());
            let over = pod.is_over();
            for member in pod.members.iter_mut().filter(|it| !it.over && !over && it.role != Role::Init) {
                let Some(status) = status(found, member.name) else { continue };
                let runs = status["state"]["running"].is_object()
                    && status["started"] == true
                    && status["restartCount"] == member.restarts
                    && runs_noted(&ran, &pod.name, member.name) == member.restarts as usize + 1;
                let id = status["containerID"].as_str().and_then(|id| id.rsplit('/').next());
                member.id = id.filter(|_| runs).map(str::to_owned);
            }
        }
    }

    /// Waits until every pod is what it must be.
    pub(crate) fn settle(&mut self) {
        // The longest back-off, and what a busy machine needs for a hundred pods.
        let end = deadline(Duration::from_secs(20) + 4 * SOON);
        loop {
            self.follow_failing();
            let wrong = self.wrong();
            self.look();
            if wrong.is_empty() && self.failing.is_empty() {
                return;
            }
            if Instant::now() > end {
                let failing: Vec<_> = self.failing.iter().map(|(name, ..)| name).collect();
                panic!(
                    "not as they must be:\n{}\nwhose liveness does not end them: {failing:?}\n{:?}",
                    wrong.join("\n"),
                    self.tally
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Takes all pods away and looks for what they have left.
    pub(crate) fn finish(self) {
        self.node.finish();
    }

    /// Settles with all containers of all pods running, so that what is held can be compared.
    pub(crate) fn settle_running(&mut self) {
        loop {
            self.settle();
            // A probe that was failing may just now have ended what is not started again.
            let is_over = |pod: &Pod| pod.members.iter().any(|member| member.over);
            let over: Vec<_> = (0..self.pods.len()).filter(|index| is_over(&self.pods[*index])).collect();
            if over.is_empty() {
                break;
            }
            over.into_iter().for_each(|index| self.replace(index));
        }
        self.images.settle(&self.node);
    }

    /// What is not as it must be.
    fn wrong(&self) -> Vec<String> {
        let mut seen = self.seen();
        let mut wrong = Vec::new();
        for pod in &self.pods {
            let checked = match seen.remove(&pod.name) {
                Some(found) => pod.check(&found).and_then(|()| self.check_runs(pod)),
                None => Err("is not there".to_owned()),
            };
            if let Err(error) = checked {
                wrong.push(format!("{} {error}\n{}{}", pod.name, pod.history(), self.log_of(pod)));
            }
        }
        wrong.extend(seen.keys().map(|name| format!("{name} is still there")));
        wrong
    }

    /// What the agent said of a pod.
    fn log_of(&self, pod: &Pod) -> String {
        let names =
            [format!("default/{} ", pod.name), pod.uid.clone().unwrap_or_else(|| "no UID".to_owned())];
        let log = self.node.agent_log();
        let about = log.lines().filter(|line| names.iter().any(|name| line.contains(name)));
        about.map(|line| format!("    {line}\n")).collect()
    }

    /// Whether each container ran as often as it was started, by what it has noted itself.
    fn check_runs(&self, pod: &Pod) -> Result<(), String> {
        for member in &pod.members {
            let noted = runs_noted(&self.node.path("ran"), &pod.name, member.name);
            if noted != member.restarts as usize + 1 {
                return Err(format!(
                    "container {} ran {noted} times after {} restarts",
                    member.name, member.restarts
                ));
            }
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

fn runs_noted(ran: &std::path::Path, pod: &str, container: &str) -> usize {
    fs::read_to_string(ran.join(format!("{pod}.{container}"))).unwrap_or_default().lines().count()
}

/// Whether a process has ended, or does within the time.
fn has_ended(process: &OwnedFd, within: Duration) -> bool {
    let within = Timespec::try_from(within).expect("seconds");
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&within)).is_ok_and(|ready| ready > 0)
}

fn wait_ended(process: &OwnedFd, what: &str) {
    assert!(has_ended(process, SOON), "{what}: a process that was to end does not");
}
