//! `coracle exec`.

use std::io::Write;
use std::process::Stdio;

use coracle_tests::manifests::{idle, pod, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::processes::namespace;
use serde_json::json;

#[test]
fn exit_codes_and_output_come_back() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("a"), idle("b")]));
    node.wait_running("target");
    let exec = |command: &[&str]| {
        let mut arguments = vec!["exec", "target", "-c", "b", "--"];
        arguments.extend(command);
        node.coracle(&arguments)
    };
    let both = exec(&["sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((both.code, both.stdout.as_str()), (42, "out\n"));
    assert!(both.stderr.starts_with("err\n"), "{}", both.stderr);
    assert_eq!(exec(&["true"]).code, 0);
    assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).code, 137);
    let missing = exec(&["/no/such/program"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("/no/such/program"), "{}", missing.stderr);
    let nobody = node.coracle(&["exec", "target", "-c", "nobody", "--", "true"]);
    assert_ne!(nobody.code, 0);
    assert!(nobody.stderr.contains("nobody"), "{}", nobody.stderr);
    let nowhere = node.coracle(&["exec", "nowhere", "--", "true"]);
    assert_ne!(nowhere.code, 0);
    assert!(nowhere.stderr.contains("not found"), "{}", nowhere.stderr);
    node.finish();
}

#[test]
fn standard_input_is_passed_and_ends() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("c")]));
    node.wait_running("target");
    let mut command = node.command(&["exec", "-i", "target", "--", "sh", "-c", "wc -c; echo after"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&vec![b'x'; 3 << 20]));
    let answer = Answer::from(child.wait_with_output().unwrap());
    writer.join().unwrap().unwrap();
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "3145728\nafter\n"), "{}", answer.stderr);
    node.finish();
}

#[test]
fn an_executed_program_is_the_containers() {
    needs_root!();
    let node = Node::start();
    let mut user = idle("c");
    user = with(user, "securityContext", json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}));
    user = with(user, "env", json!([{"name": "WHO", "value": "me"}]));
    user = with(user, "workingDir", json!("/var"));
    node.run(&pod("target", vec![user]));
    let seen = node.wait_running("target");
    let script = "echo $WHO; pwd; id -u; grep -E 'CapEff|Seccomp:|CapBnd' /proc/self/status; \
                  ls /proc/self/fd | tr '\\n' ' '; for n in mnt pid net cgroup; do stat -L -c %i /proc/self/ns/$n; done";
    let text = node.coracle_ok(&["exec", "target", "--", "sh", "-c", script]);
    let pid = node.container_pid(&seen, "c");
    let namespaces: String =
        ["mnt", "pid", "net", "cgroup"].map(|kind| format!("{}\n", namespace(pid, kind))).concat();
    let expected = format!(
        "me\n/var\n1000\nCapBnd:\t0000000000000000\nCapEff:\t0000000000000000\nSeccomp:\t2\n0 1 2 3 {namespaces}"
    );
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(&expected));
    node.finish();
}

#[test]
fn a_terminal_is_a_terminal_of_the_right_size() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("c")]));
    node.wait_running("target");
    // The size is told once the program runs, as by kubectl.
    let script =
        r#"tty; n=0; until stty size | grep "33 77" || [ $((n+=1)) = 1000 ]; do usleep 10000; done; exit 5"#;
    // script(1) gives the command a terminal of its own, whose size stty sets first.
    let coracle = coracle_tests::node::binary();
    let flags = node.flags().join(" ");
    let line =
        format!("stty rows 33 cols 77; {} {flags} exec -it target -- sh -c '{script}'", coracle.display());
    let output = node.machine().command("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
    let answer = Answer::from(output);
    assert!(answer.stdout.contains("/dev/pts/"), "{}", answer.stdout);
    assert!(answer.stdout.contains("33 77"), "{}", answer.stdout);
    assert_eq!(answer.code, 5, "{}", answer.stdout);
    node.finish();
}

#[test]
fn many_at_once_leave_nothing() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("c")]));
    node.wait_running("target");
    let children: Vec<_> = (0..20)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            let mut command = node.command(&["exec", "target", "--", "sh", "-c", &script]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let answer = Answer::from(child.wait_with_output().unwrap());
        assert_eq!((answer.code, answer.stdout), (number.try_into().unwrap(), format!("{number}\n")));
    }
    node.finish();
}

/// It was born of pause, and would else be as protected from the OOM killer as pause is.
#[test]
fn an_executed_program_is_as_exposed_to_the_oom_killer_as_its_container() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("target", vec![idle("c")]));
    let seen = node.wait_running("target");
    let score = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let of_container = score(&node.container_pid(&seen, "c").to_string());
    assert_eq!(of_container.trim(), "1000", "best effort");
    assert_eq!(node.coracle_ok(&["exec", "target", "--", "cat", "/proc/self/oom_score_adj"]), of_container);
    node.finish();
}
