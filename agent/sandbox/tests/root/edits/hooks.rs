//! Hooks at each point, with their state, in their order, and whatever becomes of the agent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_model::{EditHook, HookPoint};
use coracle_sandbox::{ContainerStage, Error};
use serde_json::Value;

use super::{KINDS, place};
use crate::takeover::killed::{Cut, run_agent_until};
use crate::takeover::place::{Agent, Kind, Owned, Place};

const POINTS: [(HookPoint, &str); 5] = [
    (HookPoint::CreateRuntime, "createRuntime"),
    (HookPoint::CreateContainer, "createContainer"),
    (HookPoint::StartContainer, "startContainer"),
    (HookPoint::Poststart, "poststart"),
    (HookPoint::Poststop, "poststop"),
];

/// A shell script as a hook.
fn hook(point: HookPoint, script: &str) -> EditHook {
    EditHook {
        point,
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["ONLY=this".to_owned()],
        timeout: Some(Duration::from_secs(30)),
    }
}

/// One at each point, which notes its state and its turn.
fn at_all_points(out: &Path) -> Vec<EditHook> {
    let note = |(point, name): (HookPoint, &str)| {
        let inside = point == HookPoint::StartContainer;
        let (out, cat) =
            if inside { ("/out", "/bin/busybox cat") } else { (out.to_str().unwrap(), "/bin/cat") };
        hook(point, &format!("{cat} >{out}/{name}; echo {name} $ONLY >>{out}/order"))
    };
    POINTS.map(note).into()
}

fn state(out: &Path, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join(name)).unwrap()).unwrap()
}

fn order(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.out().join("order")).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Creates and starts the container; its hooks up to `poststart` were executed.
async fn started(place: &Place) -> Agent {
    let agent = place.agent().await;
    let pod = place.pod();
    agent.runtime.ensure_sandbox(&pod).await.unwrap();
    let id = agent.runtime.create_container(place.request()).await.unwrap();
    agent.runtime.start_container(&pod.uid, id).await.unwrap();
    agent
}

async fn ended(agent: &mut Agent, place: &Place) {
    while !matches!(agent.see(place).containers[0].stage, ContainerStage::Exited { .. }) {
        agent.change().await;
    }
}

const WAITS: &str = "echo program >>/out/order; until [ -e /out/go ]; do /bin/busybox usleep 20000; done";

#[tokio::test]
async fn each_hook_has_its_turn_and_the_state_of_then() {
    for kind in KINDS {
        let Some(mut owned) = place(kind, WAITS) else { continue };
        let out = owned.place.out();
        owned.place.edits.hooks = at_all_points(&out);
        owned.place.edits.annotations = [("vendor.com/a".to_owned(), "b".to_owned())].into();
        let place = &owned.place;
        let mut agent = started(place).await;
        let id = agent.see(place).containers[0].id.to_string();
        place.go();
        ended(&mut agent, place).await;

        let mut turns = order(place);
        // The program and the hook that follows its execution go on side by side.
        let program = turns.iter().position(|turn| turn == "program").unwrap();
        assert_eq!(turns.remove(program), "program", "{kind:?}");
        assert!(program >= 3, "{kind:?}: the program came before hooks that come first: {program}");
        assert_eq!(turns, POINTS.map(|(_, name)| format!("{name} this")), "{kind:?}");

        for (name, status) in POINTS
            .map(|(_, name)| name)
            .into_iter()
            .zip(["creating", "creating", "created", "running", "stopped"])
        {
            let state = state(&out, name);
            assert_eq!(state["ociVersion"], "1.3.0");
            assert_eq!(
                (&state["id"], &state["status"]),
                (&Value::from(id.as_str()), &Value::from(status)),
                "{name}"
            );
            assert_eq!(state["annotations"]["vendor.com/a"], "b");
            let bundle = state["bundle"].as_str().unwrap();
            let config: Value =
                serde_json::from_str(&fs::read_to_string(format!("{bundle}/config.json")).unwrap()).unwrap();
            assert_eq!(config["root"]["path"], "rootfs");
            for field in ["env", "args"] {
                let values = config["process"][field].as_array();
                assert!(values.is_none_or(Vec::is_empty), "values of Secrets may be there: {config}");
            }
            assert_eq!(state["pid"].is_u64(), name != "poststop", "{name}");
        }
        if kind == Kind::Plain {
            assert_eq!(state(&out, "createContainer")["pid"], 1, "as the container's namespace has it");
            assert_eq!(state(&out, "startContainer")["pid"], 1);
            assert_eq!(
                state(&out, "createRuntime")["pid"],
                state(&out, "poststart")["pid"],
                "as the host has it"
            );
        }
        agent.remove(place).await;
        assert_eq!(order(place).len(), 6, "no hook is executed twice");
    }
}

#[tokio::test]
async fn what_a_hook_does_in_the_containers_namespaces_is_in_the_container_and_not_on_the_host() {
    let script = "/bin/busybox cat /made /mnt/in; /bin/busybox grep -c ' /mnt ' /proc/self/mountinfo; ls() { :; }; \
                  [ -e /hosts ] || echo no host";
    let makes = "bundle=$(sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); root=$bundle/rootfs; \
                 echo by a hook >$root/made; mkdir -p $root/mnt; mount -t tmpfs tmpfs $root/mnt; echo in it >$root/mnt/in; \
                 [ -c $root/dev/null ] && [ -d $root/proc/1 ] && [ -d /sys/kernel ]";
    for kind in KINDS {
        let Some(mut owned) = place(kind, script) else { continue };
        let mut makes = hook(HookPoint::CreateContainer, makes);
        makes.env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        owned.place.edits.hooks = vec![makes];
        let place = &owned.place;
        let mut agent = place.agent().await;
        let ended = agent.run(place).await;
        let ContainerStage::Exited { exit_code: 0, .. } = ended else {
            panic!("{kind:?}: {ended:?} {:?}", place.log())
        };
        assert_eq!(
            place.log(),
            ["stdout F by a hook", "stdout F in it", "stdout F 1", "stdout F no host"],
            "{kind:?}"
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(place.sandbox().to_str().unwrap()) || !mounts.contains("rootfs/mnt"),
            "{mounts}"
        );
        agent.remove(place).await;
    }
}

#[tokio::test]
async fn a_hook_that_fails_before_the_program_keeps_it_from_running_and_poststop_follows() {
    for (point, name) in POINTS.into_iter().take(3) {
        let mut owned = Owned::new(Kind::Plain).unwrap();
        let out = owned.place.out();
        owned.place.edits.hooks = vec![
            hook(point, "echo the device is busy >&2; exit 4"),
            hook(HookPoint::Poststop, &format!("echo cleaned up >>{}/order", out.display())),
        ];
        let place = &owned.place;
        let agent = place.agent().await;
        let pod = place.pod();
        agent.runtime.ensure_sandbox(&pod).await.unwrap();
        let error = match agent.runtime.create_container(place.request()).await {
            Err(error) => error,
            Ok(id) => agent.runtime.start_container(&pod.uid, id).await.unwrap_err(),
        };
        assert!(matches!(error, Error::Hook(_) | Error::Init(_)), "{error:?}");
        let error = error.to_string();
        assert!(
            error.contains(name) && error.contains("the device is busy") && error.contains("exit status: 4"),
            "{error}"
        );
        assert_eq!(place.runs(), 0);
        // What is left of a creation is removed beside it, and what can be is when the sandbox goes.
        agent.remove(place).await;
        assert_eq!(order(place), ["cleaned up"], "{name}");
    }
}

#[tokio::test]
async fn a_hook_after_the_program_that_fails_changes_nothing() {
    let mut owned = Owned::new(Kind::Plain).unwrap();
    owned.place.edits.hooks = vec![hook(HookPoint::Poststart, "exit 1"), hook(HookPoint::Poststop, "exit 1")];
    let place = &owned.place;
    let mut agent = place.agent().await;
    let ContainerStage::Exited { exit_code: 0, .. } = agent.run(place).await else {
        panic!("{:?}", place.log())
    };
    agent.remove(place).await;
}

#[tokio::test]
async fn a_hook_that_hangs_ends_at_its_timeout() {
    let mut owned = Owned::new(Kind::Plain).unwrap();
    let hangs =
        EditHook { timeout: Some(Duration::from_secs(1)), ..hook(HookPoint::CreateContainer, "sleep 1000") };
    owned.place.edits.hooks = vec![hangs];
    let place = &owned.place;
    let agent = place.agent().await;
    agent.runtime.ensure_sandbox(&place.pod()).await.unwrap();
    let error = agent.runtime.create_container(place.request()).await.unwrap_err().to_string();
    assert!(error.contains("has not answered after"), "{error}");
    agent.remove(place).await;
}

#[tokio::test]
async fn what_hooks_are_owed_is_done_under_the_next_agent_wherever_one_is_killed() {
    for (kind, cut) in KINDS.into_iter().flat_map(|kind| CUTS.map(|cut| (kind, cut))) {
        let Some(mut owned) = place(kind, WAITS) else { continue };
        owned.place.edits.hooks = at_all_points(&owned.place.out());
        let place = &owned.place;
        run_agent_until(place, cut);
        let mut agent = place.agent().await;
        agent.take_over(place).await;
        let runs = matches!(cut, Cut::Executed | Cut::Done);
        if runs {
            place.go();
            ended(&mut agent, place).await;
        }
        agent.remove(place).await;
        let turns = order(place);
        let of = |name: &str| turns.iter().filter(|turn| turn.starts_with(name)).count();
        assert_eq!(of("poststop"), 1, "{kind:?} {cut:?}: {turns:?}");
        assert_eq!(of("poststart"), usize::from(runs), "{kind:?} {cut:?}: {turns:?}");
        assert_eq!(of("program"), usize::from(runs), "{kind:?} {cut:?}: {turns:?}");
    }
}

/// Behind the first hook's being on record: before, nothing is owed.
const CUTS: [Cut; 4] = [Cut::Created, Cut::Start, Cut::Executed, Cut::Done];
