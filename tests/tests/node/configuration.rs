//! ConfigMaps and the pod's own fields, as files and variables.

use std::fs;
use std::time::Duration;

use coracle_tests::manifests::{idle, pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_status};
use coracle_tests::wait::{SOON, holds_for, wait_for, wait_until};
use serde_json::{Value, json};

/// What a change may take to reach the files of a container that runs.
const LIVE: Duration = Duration::from_secs(5);

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A container with volumes at these paths.
pub(crate) fn mounted(container: Value, volumes: &[(&str, &str)]) -> Value {
    let mounts =
        volumes.iter().map(|(name, path)| json!({"name": name, "mountPath": path})).collect::<Vec<_>>();
    with(container, "volumeMounts", json!(mounts))
}

/// What a program in the only container of a pod writes.
#[track_caller]
pub(crate) fn sh(node: &Node, pod: &str, script: &str) -> String {
    node.coracle_ok(&["exec", pod, "--", "sh", "-c", script])
}

/// What files of a volume hold that may change meanwhile: nothing when the version that they were looked up in is removed
/// between that and opening them, as with any kubelet.
pub(crate) fn read(node: &Node, pod: &str, files: &str) -> String {
    node.coracle(&["exec", pod, "--", "sh", "-c", &format!("cat {files}")]).stdout
}

fn waiting(pod: &Value, container: &str) -> Value {
    container_status(pod, container)["state"]["waiting"].clone()
}

/// The messages of a pod's events of one reason.
fn events(node: &Node, pod: &str, reason: &str) -> Vec<String> {
    let text = node.coracle_ok(&["get", "events", "--for", &format!("pod/{pod}"), "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let items = list["items"].as_array().unwrap().iter().filter(|event| event["reason"] == reason);
    items.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pods_wait_for_what_they_are_made_of_and_start_when_it_comes() {
    needs_root!();
    let node = Node::start();
    let volume = pod("files", vec![mounted(idle("c"), &[("v", "/etc/web")])]);
    node.run(&with(volume, "spec.volumes", json!([{"name": "v", "configMap": {"name": "web"}}])));
    let from = json!([{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "color"}}}]);
    node.run(&pod("variable", vec![with(idle("c"), "env", from)]));
    let all = json!([{"configMapRef": {"name": "web"}}]);
    node.run(&pod("variables", vec![with(idle("c"), "envFrom", all)]));

    let expected = "MountVolume.SetUp failed for volume \"v\" : configmap \"web\" not found";
    wait_until("the event", SOON, || events(&node, "files", "FailedMount") == [expected]);
    for name in ["variable", "variables"] {
        let seen =
            node.wait_pod(name, "to wait", |pod| waiting(pod, "c")["reason"] == "CreateContainerConfigError");
        assert_eq!(waiting(&seen, "c")["message"], "configmap \"web\" not found");
        assert_eq!(events(&node, name, "Failed"), ["Error: configmap \"web\" not found"]);
    }

    // One without the key that a pod asks for comes first.
    node.write_manifest("web.json", &config_map("web", json!({"size": "1"})));
    node.wait_running("files");
    let message = "couldn't find key color in ConfigMap default/web";
    node.wait_pod("variable", "to miss the key", |pod| waiting(pod, "c")["message"] == message);
    node.write_manifest("web.json", &config_map("web", json!({"color": "blue", "size": "2"})));
    node.wait_running("variable");
    node.wait_running("variables");
    assert_eq!(sh(&node, "variable", "echo $COLOR"), "blue\n");
    wait_until("the key in the file", LIVE, || read(&node, "files", "/etc/web/*") == "blue2");
    node.finish();
}

#[test]
fn a_change_reaches_a_running_container_whole() {
    needs_root!();
    let node = Node::start();
    let content =
        |round: u32| config_map("web", json!({"first": round.to_string(), "last": round.to_string()}));
    node.write_manifest("web.yaml", &content(0));
    // Whoever looks through `..data` sees one version, or that the one it looked into is gone.
    let reader = "while :; do a= b=; cd -P /etc/web/..data 2>/dev/null && read a < first && read b < last \
                  && [ \"$a\" != \"$b\" ] && echo MIX $a $b; done 2>/dev/null";
    let mut reader = mounted(shell("reader", reader), &[("v", "/etc/web")]);
    reader["volumeMounts"] = json!([
        {"name": "v", "mountPath": "/etc/web"},
        {"name": "v", "mountPath": "/etc/first", "subPath": "first"},
    ]);
    reader["env"] =
        json!([{"name": "FIRST", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "first"}}}]);
    let changing = pod("changing", vec![reader]);
    node.run(&with(changing, "spec.volumes", json!([{"name": "v", "configMap": {"name": "web"}}])));
    node.wait_running("changing");
    for round in 1..=20 {
        node.write_manifest("web.yaml", &content(round));
        wait_until(format_args!("round {round} in the container"), LIVE, || {
            read(&node, "changing", "/etc/web/last") == round.to_string()
        });
    }
    assert_eq!(sh(&node, "changing", "cat /etc/first; echo $FIRST"), "00\n", "a subPath and a variable stay");
    let link = sh(&node, "changing", "readlink /etc/web/..data");
    // Another object of the same file, or the same content again, is no change.
    node.write_manifest(
        "web.yaml",
        &json!({"apiVersion": "v1", "kind": "List", "items": [content(20), config_map("other", json!({}))]}),
    );
    wait_until("the other object", SOON, || node.agent_log().contains("ConfigMap default/other"));
    holds_for("the link", Duration::from_millis(300), || {
        sh(&node, "changing", "readlink /etc/web/..data") == link
    });
    assert_eq!(node.logs("changing", "reader"), "");
    assert!(fs::write(node.path("x"), "").is_ok());
    let refused = node.coracle(&["exec", "changing", "--", "sh", "-c", "echo x > /etc/web/first"]);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    node.finish();
}

#[test]
fn files_of_every_kind_with_their_modes() {
    needs_root!();
    let node = Node::start();
    let binary = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"},
        "data": {"a": "from the map", "b": "unseen"}, "binaryData": {"logo": "/wAB"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "stringData": {"a": "from the secret", "user": "admin"}});
    node.write_manifest("all.yaml", &json!({"apiVersion": "v1", "kind": "List", "items": [binary, secret]}));
    let mut files =
        pod("files", vec![mounted(idle("c"), &[("all", "/all"), ("none", "/none"), ("plain", "/plain")])]);
    files["metadata"]["labels"] = json!({"app": "files", "tier": "x"});
    files["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    files["spec"]["volumes"] = json!([
        {"name": "plain", "configMap": {"name": "web"}},
        {"name": "none", "secret": {"secretName": "nothing", "optional": true}},
        {"name": "all", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "web", "items": [
                {"key": "a", "path": "conf/a", "mode": 0o755}, {"key": "logo", "path": "logo"}, {"key": "a", "path": "same"}]}},
            {"secret": {"name": "login"}},
            {"configMap": {"name": "nothing", "optional": true}},
            {"downwardAPI": {"items": [
                {"path": "pod/labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "pod/name", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "pod/mib", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}},
        ]}},
    ]);
    node.run(&files);
    node.wait_running("files");
    let list = "cd -P /all/..data && find . -type f | sort | while read f; do stat -c '%a %n' $f; done";
    assert_eq!(
        sh(&node, "files", list),
        "440 ./a\n755 ./conf/a\n440 ./logo\n440 ./pod/labels\n440 ./pod/mib\n440 ./pod/name\n440 ./same\n440 ./user\n"
    );
    assert_eq!(
        sh(
            &node,
            "files",
            "cd /all; cat a; echo; cat conf/a; echo; cat pod/labels; echo; cat pod/name pod/mib; echo; od -An -tx1 logo"
        ),
        "from the secret\nfrom the map\napp=\"files\"\ntier=\"x\"\nfiles64\n ff 00 01\n"
    );
    assert_eq!(sh(&node, "files", "ls /none; ls /plain; stat -c %a /plain/..data/a"), "a\nb\nlogo\n644\n");
    assert_eq!(sh(&node, "files", "stat -f -c %T /all /none /plain"), "tmpfs\ntmpfs\ntmpfs\n");
    node.finish();
}

#[test]
fn two_sources_of_one_path_are_later_over_earlier_and_no_file_is_a_directory() {
    needs_root!();
    let node = Node::start();
    let maps = [config_map("one", json!({"a": "1"})), config_map("two", json!({"a": "2"}))];
    node.write_manifest("maps.yaml", &json!({"apiVersion": "v1", "kind": "List", "items": maps}));
    let with_sources = |name: &str, sources: Value| {
        let pod = pod(name, vec![mounted(idle("c"), &[("v", "/v")])]);
        node.run(&with(pod, "spec.volumes", json!([{"name": "v", "projected": {"sources": sources}}])));
    };
    with_sources("over", json!([{"configMap": {"name": "one"}}, {"configMap": {"name": "two"}}]));
    with_sources(
        "clash",
        json!([{"configMap": {"name": "one"}}, {"configMap": {"name": "two", "items": [{"key": "a", "path": "a/b"}]}}]),
    );
    node.wait_running("over");
    assert_eq!(sh(&node, "over", "cat /v/a"), "2");
    let told = wait_for("the event", SOON, || events(&node, "clash", "FailedMount").pop());
    let expected = "MountVolume.SetUp failed for volume \"v\" : invalid path: a/b: a is there";
    assert!(told.starts_with(expected), "{told}");
    node.finish();
}

#[test]
fn variables_of_every_kind() {
    needs_root!();
    let node = Node::start();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": {"user": "YWRtaW4="}});
    node.write_manifest("web.yaml", &config_map("web", json!({"color": "$(NAME)", "my.key-1": "x"})));
    node.write_manifest("login.yaml", &secret);
    let mut container = idle("c");
    container["envFrom"] = json!([
        {"prefix": "WEB_", "configMapRef": {"name": "web"}},
        {"secretRef": {"name": "login"}},
        {"secretRef": {"name": "nothing", "optional": true}},
    ]);
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let resource = |name: &str, resource: &str, divisor: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}});
    container["resources"] = json!({"limits": {"memory": "64Mi"}, "requests": {"cpu": "100m"}});
    container["env"] = json!([
        field("NAME", "metadata.name"),
        field("NODE", "spec.nodeName"),
        field("LABEL", "metadata.labels['app']"),
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "color"}}},
        {"name": "BOTH", "value": "$(NAME)-$(user)-$(WEB_color)-$(LATER)"},
        {"name": "USER_KEY", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user"}}},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "login", "key": "none", "optional": true}}},
        resource("MIB", "limits.memory", "1Mi"),
        resource("MILLI", "requests.cpu", "1m"),
        resource("CPUS", "limits.cpu", "1"),
        {"name": "TOKEN", "valueFrom": {"fileKeyRef": {"volumeName": "scratch", "path": "out/env", "key": "TOKEN"}}},
        {"name": "ABSENT", "valueFrom": {"fileKeyRef": {"volumeName": "scratch", "path": "none", "key": "A", "optional": true}}},
        {"name": "LATER", "value": "later"},
    ]);
    let writer = "mkdir /scratch/out; printf \"# made by init\\nOTHER='x'\\nTOKEN='two\\nlines'\\n\" > /scratch/out/env";
    let mut all = pod("variables", vec![container]);
    all["metadata"]["labels"] = json!({"app": "web"});
    all["spec"]["initContainers"] = json!([mounted(shell("init", writer), &[("scratch", "/scratch")])]);
    all["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    node.run(&all);
    node.wait_running("variables");
    let names = [
        "WEB_color",
        "user",
        "NAME",
        "NODE",
        "LABEL",
        "COLOR",
        "BOTH",
        "USER_KEY",
        "MIB",
        "MILLI",
        "TOKEN",
        "LATER",
    ];
    let script: String = names.iter().map(|name| format!("echo \"{name}=${name}\"; ")).collect();
    assert_eq!(
        sh(&node, "variables", &script),
        "WEB_color=$(NAME)\nuser=admin\nNAME=variables\nNODE=node\nLABEL=web\nCOLOR=$(NAME)\n\
         BOTH=variables-admin-$(NAME)-$(LATER)\nUSER_KEY=admin\nMIB=64\nMILLI=100\nTOKEN=two\nlines\nLATER=later\n"
    );
    assert_eq!(sh(&node, "variables", "env | grep -c -E '^(MISSING|ABSENT)=' || true"), "0\n");
    // A shell does not pass on names it cannot say.
    let all = node.coracle_ok(&["exec", "variables", "-c", "c", "--", "env"]);
    assert!(all.lines().any(|line| line == "WEB_my.key-1=x"), "{all}");
    let cpus: u64 = sh(&node, "variables", "echo $CPUS").trim().parse().unwrap();
    assert!(cpus >= 1, "the node's own, where there is no limit");

    let own = json!([field("IP", "status.podIP"), field("IPS", "status.podIPs")]);
    node.run(&pod("address", vec![with(idle("c"), "env", own)]));
    let status = node.wait_running("address")["status"].clone();
    let all: Vec<_> =
        status["podIPs"].as_array().unwrap().iter().map(|ip| ip["ip"].as_str().unwrap()).collect();
    let expected = format!("{} {}\n", status["podIP"].as_str().unwrap(), all.join(","));
    assert_eq!(sh(&node, "address", "echo $IP $IPS"), expected);
    node.finish();
}

#[test]
fn what_is_immutable_stays_until_it_is_removed() {
    needs_root!();
    let node = Node::start();
    let fixed = |value: &str| with(config_map("web", json!({"a": value})), "immutable", json!(true));
    node.write_manifest("web.yaml", &fixed("1"));
    let reading = pod("reading", vec![mounted(idle("c"), &[("v", "/v")])]);
    node.run(&with(reading, "spec.volumes", json!([{"name": "v", "configMap": {"name": "web"}}])));
    node.wait_running("reading");
    node.write_manifest("web.yaml", &fixed("2"));
    let problem = "ConfigMap default/web: data: Forbidden: field is immutable when `immutable` is set";
    let problems = || node.http_get("/coracle/v1/problems").unwrap_or_default();
    wait_until("the problem", SOON, || problems().contains(problem));
    assert_eq!(sh(&node, "reading", "cat /v/a"), "1");
    node.remove("web");
    wait_until("the problem to go", SOON, || !problems().contains("immutable"));
    assert_eq!(sh(&node, "reading", "cat /v/a"), "1", "what was there stays for whoever uses it");
    node.write_manifest("web.yaml", &fixed("3"));
    wait_until("the new object", LIVE, || read(&node, "reading", "/v/a") == "3");
    node.finish();
}

#[test]
fn what_was_accepted_outlives_the_agent() {
    needs_root!();
    let mut node = Node::start();
    let fixed = |value: &str| with(config_map("fixed", json!({"a": value})), "immutable", json!(true));
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "immutable": true, "stringData": {"a": value}});
    node.write_manifest("fixed.yaml", &fixed("1"));
    node.write_manifest("login.yaml", &secret("1"));
    node.write_manifest("free.yaml", &config_map("free", json!({"a": "1"})));
    node.write_manifest("open.yaml", &config_map("open", json!({"a": "1"})));
    let from = |kind: &str, name: &str| json!({"name": name.to_uppercase(), "valueFrom": {kind: {"name": name, "key": "a"}}});
    let env = json!([
        from("configMapKeyRef", "fixed"),
        from("secretKeyRef", "login"),
        from("configMapKeyRef", "free"),
        from("configMapKeyRef", "open"),
    ]);
    let reading = |name: &str| pod(name, vec![with(idle("c"), "env", env.clone())]);
    let values = |node: &Node, pod: &str| sh(node, pod, "echo $FIXED $LOGIN $FREE $OPEN");
    node.run(&reading("before"));
    node.wait_running("before");
    assert_eq!(values(&node, "before"), "1 1 1 1\n");

    // While no agent looks: what may not change, what has become invalid, and what may change.
    node.kill_agent();
    node.write_manifest("fixed.yaml", &fixed("2"));
    node.write_manifest("login.yaml", &secret("2"));
    node.write_manifest_text("free.yaml", b"apiVersion: v1\nkind: ConfigMap\nmetadata: [wrong]\n");
    node.write_manifest("open.yaml", &config_map("open", json!({"a": "2"})));
    node.start_agent();
    node.run(&reading("after"));
    node.wait_running("after");
    assert_eq!(values(&node, "after"), "1 1 1 2\n");
    let problems = || node.http_get("/coracle/v1/problems").unwrap_or_default();
    for words in
        ["ConfigMap default/fixed: data: Forbidden", "Secret default/login: data: Forbidden", "free.yaml"]
    {
        assert!(problems().contains(words), "{words}: {}", problems());
    }
    // What is taken out of the manifests is gone, and can come again as it likes.
    for name in ["fixed", "login", "free"] {
        node.remove(name);
    }
    wait_until("the problems to go", SOON, || {
        !problems().contains("Forbidden") && !problems().contains("free")
    });
    node.write_manifest("fixed.yaml", &fixed("3"));
    node.write_manifest("login.yaml", &secret("3"));
    node.write_manifest("free.yaml", &config_map("free", json!({"a": "3"})));
    node.run(&reading("last"));
    node.wait_running("last");
    assert_eq!(values(&node, "last"), "3 3 3 2\n");
    node.finish();
}

#[test]
fn a_pod_whose_configuration_went_runs_on_and_is_told() {
    needs_root!();
    let node = Node::start();
    node.write_manifest("web.yaml", &config_map("web", json!({"a": "1"})));
    let script = "cat /v/a; echo; trap 'exit 1' TERM; while [ ! -e /tmp/end ]; do sleep 0.1; done";
    let bereft = pod("bereft", vec![mounted(shell("c", script), &[("v", "/v")])]);
    node.run(&with(bereft, "spec.volumes", json!([{"name": "v", "configMap": {"name": "web"}}])));
    node.wait_running("bereft");
    node.remove("web");
    let expected = "MountVolume.SetUp failed for volume \"v\" : configmap \"web\" not found";
    wait_until("the event", SOON, || events(&node, "bereft", "FailedMount") == [expected]);
    assert_eq!(sh(&node, "bereft", "cat /v/a; touch /tmp/end"), "1");
    // It is started again with what there was.
    node.wait_pod("bereft", "to be restarted", |pod| {
        let status = container_status(pod, "c");
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    });
    node.wait_log("bereft", "c", "1");
    // Invalid is not gone.
    node.write_manifest("web.yaml", &config_map("web", json!({"a": "2"})));
    wait_until("the object again", LIVE, || read(&node, "bereft", "/v/a") == "2");
    node.write_manifest_text("web.yaml", b"kind: [");
    wait_until("the problem", SOON, || {
        node.http_get("/coracle/v1/problems").is_some_and(|text| text.contains("web.yaml"))
    });
    let late = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "a"}}}]);
    node.run(&pod("late", vec![with(idle("c"), "env", late)]));
    node.wait_running("late");
    assert_eq!(sh(&node, "late", "echo $A"), "2\n");
    node.finish();
}

#[test]
fn the_pods_group_owns_its_volumes() {
    needs_root!();
    let node = Node::start();
    node.write_manifest("web.yaml", &config_map("web", json!({"a": "1"})));
    let mut own =
        pod("own", vec![mounted(idle("c"), &[("v", "/v"), ("disk", "/disk"), ("memory", "/memory")])]);
    own["spec"]["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 4321,
        "fsGroupChangePolicy": "OnRootMismatch", "supplementalGroups": [77], "supplementalGroupsPolicy": "Strict"});
    own["spec"]["volumes"] = json!([
        {"name": "v", "configMap": {"name": "web", "defaultMode": 0o600}},
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]);
    node.run(&own);
    node.wait_running("own");
    assert_eq!(sh(&node, "own", "id -G"), "1000 77 4321\n");
    assert_eq!(
        sh(&node, "own", "cat /v/a; stat -L -c '%a %g' /v/a /v/..data /disk /memory"),
        "1640 4321\n2755 4321\n2777 4321\n2777 4321\n"
    );
    assert_eq!(
        sh(
            &node,
            "own",
            "for d in /disk /memory; do mkdir $d/sub; echo > $d/sub/file; stat -c %g $d/sub/file; done"
        ),
        "4321\n4321\n"
    );
    node.finish();
}

#[test]
fn configuration_of_another_namespace_is_none() {
    needs_root!();
    let node = Node::start();
    let other = with(config_map("web", json!({"a": "1"})), "metadata.namespace", json!("other"));
    node.write_manifest("web.yaml", &other);
    let from = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "a"}}}]);
    node.run(&pod("here", vec![with(idle("c"), "env", from.clone())]));
    let there = with(pod("there", vec![with(idle("c"), "env", from)]), "metadata.namespace", json!("other"));
    node.run(&there);
    node.wait_running("there");
    node.wait_pod("here", "to wait", |pod| waiting(pod, "c")["message"] == "configmap \"web\" not found");
    node.finish();
}
