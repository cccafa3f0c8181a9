//! `coracle uninstall`: nothing of a node is left on its machine.

use std::collections::BTreeSet;
use std::fmt::from_fn;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use coracle_tests::machine::Machine;
use coracle_tests::manifests::{idle, pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::network::interfaces;
use coracle_tests::node::{Answer, Node, binary};
use coracle_tests::processes;
use coracle_tests::wait::{SOON, wait_until};
use serde_json::json;

use crate::network::plugins;

/// A machine where what is removed from /etc is not the host's.
fn with_own_etc() -> Machine {
    let machine = Machine::new();
    machine.take_etc();
    machine
}

/// What a node can have on a machine, a line for each thing.
fn inventory(machine: &Machine) -> BTreeSet<String> {
    let run = |program: &str, arguments: &[&str]| {
        Answer::from(machine.command(program).args(arguments).output().unwrap()).stdout
    };
    let names = [
        "log",
        "root",
        "run",
        "manifests",
        "etc/systemd/logind.conf.d",
        "kubelet/device-plugins",
        "kubelet/plugins_registry",
        "kubelet/pod-resources",
        "cdi",
    ];
    let files = names.into_iter().filter(|name| machine.path(name).exists()).map(str::to_owned);
    let kinds: [(&str, Vec<String>); 6] = [
        ("process", machine.processes().into_iter().map(processes::command_line).collect()),
        ("mount", processes::mounts(machine.init())),
        ("cgroup", machine.cgroups().directories().iter().map(|path| path.display().to_string()).collect()),
        ("interface", interfaces(machine.init()).into_iter().collect()),
        ("rules", vec![run("nft", &["list", "ruleset"])]),
        ("file", files.collect()),
    ];
    kinds.into_iter().flat_map(|(kind, all)| all.into_iter().map(move |it| format!("{kind} {it}"))).collect()
}

fn uninstall(node: &Node, more: &[&str]) -> Answer {
    node.coracle(&[&["uninstall", "--keep-files"], more].concat())
}

#[test]
fn nothing_is_left_of_a_node_without_an_agent() {
    needs_root!();
    let machine = with_own_etc();
    let before = inventory(&machine);
    let devices =
        json!({"resources": [{"name": "test.dev/null", "devices": [{"paths": [{"path": "/dev/null"}]}]}]});
    fs::write(machine.path("etc/devices.json"), devices.to_string()).unwrap();
    let configuration = format!("devicePluginConfig: {}\n", machine.path("etc/devices.json").display());
    let mut node = Node::start_on(machine, &configuration, Vec::new());
    let socket = node.path("kubelet/device-plugins/coracle-test.dev_null.sock");
    wait_until("the node's own device plugin to serve", SOON, || socket.exists());
    let out = node.path("out");
    fs::create_dir(&out).unwrap();
    let script = "trap 'echo asked >> /out/end; exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let mut first = with_host_path(pod("first", vec![shell("c", script), idle("d")]), "out", &out, "/out");
    first["spec"]["containers"][1]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
    let memory = json!({"name": "memory", "emptyDir": {"medium": "Memory"}});
    first["spec"]["volumes"].as_array_mut().unwrap().push(memory);
    first["spec"]["containers"][1]["volumeMounts"] = json!([{"name": "memory", "mountPath": "/memory"}]);
    node.run(&first);
    node.run(&with(pod("second", vec![idle("c")]), "spec.shareProcessNamespace", json!(true)));
    node.wait_running("first");
    node.wait_running("second");

    let refused = uninstall(&node, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("another agent runs with"), "{}", refused.stderr);
    node.kill_agent();

    // As the plugin leaves it that is killed.
    assert!(socket.exists());
    fs::create_dir_all(node.path("cdi")).unwrap();
    fs::write(node.path("cdi/coracle-nvidia.json"), "{}").unwrap();

    // A log of somebody else's, and the lasting trace of a configuration that was once there.
    let foreign = node.path("log/pods/others.log");
    fs::write(&foreign, "").unwrap();
    let drop_ins = node.path("etc/systemd/logind.conf.d");
    fs::create_dir_all(&drop_ins).unwrap();
    fs::write(drop_ins.join("99-coracle.conf"), "[Login]\n").unwrap();

    let answer = uninstall(&node, &["--keep-data"]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert_eq!(fs::read_to_string(out.join("end")).unwrap(), "asked\n", "pods end as they are meant to");
    assert!(node.path("root/images").exists() && node.path("manifests/first.yaml").exists(), "data is kept");
    assert!(!node.path("run").exists());

    // With data and nothing that runs.
    let answer = uninstall(&node, &[]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("stays: it holds logs of others"), "{}", answer.stdout);
    assert!(foreign.exists(), "the log of others");
    fs::remove_dir_all(node.path("log")).unwrap();
    fs::remove_dir_all(node.path("manifests")).unwrap();
    // A network namespace ends some time after its last process.
    let changed =
        || inventory(node.machine()).symmetric_difference(&before).cloned().collect::<BTreeSet<_>>();
    let what = from_fn(|f| write!(f, "nothing to be left, and nothing else to be gone: {:#?}", changed()));
    wait_until(what, SOON, || changed().is_empty());
}

#[test]
fn what_others_have_stays() {
    needs_root!();
    let machine = with_own_etc();
    let mut node = Node::start_on(machine, "", Vec::new());
    node.run(&pod("only", vec![idle("c")]));
    node.wait_running("only");
    node.stop_agent();
    let run = |line: &str| {
        let status = node.machine().command("sh").args(["-c", line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    run("ip link add others type veth peer name others1 && ip link set others master coracle0");
    run("nft add table inet others");
    fs::write(node.path("root/mine"), "").unwrap();
    let plugin = UnixListener::bind(node.path("kubelet/device-plugins/vendor.sock")).unwrap();
    fs::create_dir_all(node.path("cdi")).unwrap();
    fs::write(node.path("cdi/vendor.json"), "{}").unwrap();
    let mounted = node.path("root/images/mounted");
    fs::create_dir(&mounted).unwrap();
    run(&format!("mount -t tmpfs others {0} && touch {0}/kept", mounted.display()));

    let answer = uninstall(&node, &[]);
    assert_eq!(answer.code, 1, "{}", answer.stdout);
    assert!(answer.stderr.contains("something is mounted in"), "{}", answer.stderr);
    assert!(answer.stderr.contains("the pods' bridge stays: others use it"), "{}", answer.stderr);
    run(&format!("test -e {}/kept", mounted.display()));
    run(&format!("umount {}", mounted.display()));

    let answer = uninstall(&node, &[]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(interfaces(node.machine().init()).contains("coracle0"), "others have an interface on it");
    assert!(
        node.path("root/mine").exists() && answer.stdout.contains("stays: it holds what is not coracle's")
    );
    let rules = node.machine().command("nft").args(["list", "tables"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&rules.stdout), "table inet others\n");
    let left: Vec<_> =
        fs::read_dir(node.path("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
    drop(plugin);
    assert!(
        node.path("kubelet/device-plugins/vendor.sock").exists() && node.path("cdi/vendor.json").exists()
    );
    assert!(!node.path("kubelet/device-plugins/kubelet.sock").exists());
    assert!(!node.path("kubelet/pod-resources").exists());
}

#[test]
fn what_is_at_work_to_the_end_leaves_nothing_behind() {
    needs_root!();
    let mut node = Node::start_on(with_own_etc(), "", Vec::new());
    node.kill_agent();
    let late = node.path("run/late");
    let script = format!(
        "case $CNI_COMMAND in\nGC) touch {0}; sleep 2; mkdir -p {1}; echo >> {0} ;;\n\
         *) echo '{{\"cniVersion\": \"1.1.0\", \"supportedVersions\": [\"1.1.0\"]}}' ;;\nesac",
        node.path("collected").display(),
        late.display()
    );
    plugins::install(&node, "slow", &script);
    let list = json!({"cniVersion": "1.1.0", "name": "slow", "plugins": [{"type": "slow"}]});
    plugins::configure(&node, "10-slow.conflist", &list.to_string());

    let answer = uninstall(&node, &[]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    let collected = fs::read_to_string(node.path("collected")).expect("the plugin was asked to collect");
    assert_eq!(collected, "\n", "its end was waited for");
    assert!(!node.path("run").exists(), "what it made has been removed");
}

#[test]
fn what_a_kubelet_has_in_the_same_cgroup_runs_on() {
    needs_root!();
    let mut node = Node::start_on(with_own_etc(), "", Vec::new());
    node.run(&pod("only", vec![idle("c")]));
    node.wait_running("only");
    node.kill_agent();
    let all = node.machine().cgroups().directories();
    let kubepods: Vec<_> = all.iter().filter(|path| path.ends_with("kubepods")).collect();
    if kubepods.is_empty() {
        eprintln!("skipped: systemd makes the cgroups");
        return;
    }
    let theirs: Vec<_> = kubepods.iter().map(|path| path.join("burstable/podtheirs")).collect();
    theirs.iter().for_each(|path| fs::create_dir_all(path).unwrap());

    let answer = uninstall(&node, &[]);
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("kubepods stays: others use it"), "{}", answer.stdout);
    assert!(theirs.iter().all(|path| path.exists()));
    theirs.iter().for_each(|path| fs::remove_dir(path).unwrap());
}

#[test]
fn where_no_node_has_been_nothing_is_made_to_be_removed() {
    needs_root!();
    let machine = with_own_etc();
    let (run, root) = (machine.path("run"), machine.path("root"));
    let configuration = format!(
        "runDir: {}\nrootDir: {}\ndevicePluginDir: {}\ncdiSpecDirs: [{}]\n",
        run.display(),
        root.display(),
        machine.path("kubelet/device-plugins").display(),
        machine.path("cdi").display()
    );
    fs::write(machine.path("config.yaml"), configuration).unwrap();
    let mut command = machine.command(binary());
    command.args(["uninstall", "--keep-files", "--keep-data", "--config"]).arg(machine.path("config.yaml"));
    let answer = Answer::from(command.output().unwrap());
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(!root.exists() && !run.exists(), "no node was started for it");
}

#[test]
fn a_package_whose_configuration_is_wrong_can_be_removed() {
    needs_root!();
    let machine = with_own_etc();
    let run = |line: &str| {
        let line = line.replace("coracle uninstall", &format!("{} uninstall", binary().display()));
        Answer::from(machine.command("sh").args(["-ec", &line]).output().unwrap())
    };
    let remove = "coracle uninstall --keep-files --keep-data";
    let of_its_own =
        run("mkdir -p /etc/coracle; for dir in /run /var/lib; do mount -t tmpfs none $dir; done");
    assert_eq!(of_its_own.code, 0, "{}", of_its_own.stderr);

    // Where its pods would be is not known.
    let answer =
        run(&format!("printf 'runDir: /run/mine\\nmaxPods: [' > /etc/coracle/config.yaml; {remove}"));
    assert_eq!(answer.code, 1, "{}", answer.stdout);
    // A pod may run.
    let wrong = "echo 'maxPods: [' > /etc/coracle/config.yaml";
    let answer =
        run(&format!("{wrong}; mkdir -p /run/coracle/records; touch /run/coracle/records/a.json; {remove}"));
    assert_eq!(answer.code, 1, "{}", answer.stdout);
    // None can.
    let answer = run(&format!("rm /run/coracle/records/a.json; {remove}"));
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stderr.contains("the configuration is wrong and is left out"), "{}", answer.stderr);
}

#[test]
fn only_root_may() {
    needs_root!();
    let machine = Machine::new();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]);
    // Where anybody may execute it.
    let program = machine.path("coracle");
    fs::copy(binary(), &program).unwrap();
    fs::set_permissions(machine.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let answer = Answer::from(command.arg(program).args(["uninstall", "--keep-files"]).output().unwrap());
    assert!(answer.code == 1 && answer.stderr.contains("only root can remove a node"), "{}", answer.stderr);
}
