//! `coracle attach`.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};

use coracle_tests::manifests::{pod, shell, with};
use coracle_tests::needs_root;
use coracle_tests::node::{Answer, Node};
use coracle_tests::processes::{descendants, kill, name};
use coracle_tests::wait::{SOON, wait_for, wait_until};
use serde_json::{Value, json};

/// A client that is attached.
struct Attached {
    entry: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Attached {
    /// Attaches, and waits until what the container writes is seen.
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut command = node.command(&[&["attach"], arguments].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut entry = command.spawn().unwrap();
        let stdin = entry.stdin.take();
        let stdout = collect(entry.stdout.take().unwrap());
        let stderr = collect(entry.stderr.take().unwrap());
        Self { entry, stdin, stdout, stderr }
    }

    fn write(&self, text: &str) {
        self.stdin.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for output; all that came so far.
    #[track_caller]
    fn wait_output(&self, text: &str) -> String {
        wait_for(format_args!("{text:?} in the output, seen: {:?}", self.output()), SOON, || {
            Some(self.output()).filter(|output| output.contains(text))
        })
    }

    fn output(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Ends the client as a user's closed terminal would.
    fn kill(mut self) {
        let coracle = wait_for("the client's process", SOON, || {
            descendants(self.entry.id().cast_signed()).into_iter().find(|pid| name(*pid) == "coracle")
        });
        kill(coracle);
        let _ = self.entry.wait();
    }

    /// Waits for its end: the exit code, and both outputs.
    fn wait(mut self) -> Answer {
        let status = wait_for("the client to end", SOON, || self.entry.try_wait().unwrap());
        // What collects the outputs has them when it is the last that has not let them go.
        wait_until("the outputs to end", SOON, || {
            Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1
        });
        let text = |text: &Mutex<String>| text.lock().unwrap().clone();
        Answer { code: status.code().unwrap_or(-1), stdout: self.output(), stderr: text(&self.stderr) }
    }
}

/// What comes out of a stream, as it comes.
fn collect(mut stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            collected.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        drop(collected);
    });
    text
}

/// A pod that runs a script once. One that first reads a line has then been attached to by who sent it.
fn once(name: &str, script: &str) -> Value {
    let pod = with(pod(name, vec![shell("c", script)]), "spec.containers.0.stdin", json!(true));
    with(pod, "spec.restartPolicy", json!("Never"))
}

/// A pod that answers what it reads, line by line, and says at its end what it was.
fn answering(name: &str) -> Value {
    let script =
        "while read line; do printf 'got '; echo $line; echo no $line >&2; done; echo end; sleep 1000";
    with(pod(name, vec![shell("c", script)]), "spec.containers.0.stdin", json!(true))
}

#[test]
fn what_is_typed_comes_in_and_what_is_written_comes_out() {
    needs_root!();
    let node = Node::start();
    node.run(&answering("cat"));
    node.wait_running("cat");
    let first = Attached::start(&node, &["-i", "cat"]);
    first.write("one\n");
    first.wait_output("got one\n");
    // Two at a time see the same, and either may speak.
    let second = Attached::start(&node, &["-iq", "cat"]);
    second.write("two\n");
    assert_eq!(second.wait_output("two\n"), "got two\n", "what came before is not shown again");
    assert_eq!(first.wait_output("two\n"), "got one\ngot two\n");
    wait_until("standard error, too", SOON, || first.stderr.lock().unwrap().ends_with("no one\nno two\n"));
    assert_eq!(*second.stderr.lock().unwrap(), "no two\n", "quiet");
    assert!(
        first.stderr.lock().unwrap().contains("If you don't see a command prompt, try pressing enter.\n")
    );

    // The end of one's input is not that of the container's, nor is one's own end.
    let mut first = first;
    first.stdin = None;
    second.write("three\n");
    first.wait_output("got three\n");
    first.kill();
    second.write("four\n");
    second.wait_output("got four\n");
    second.kill();
    let third = Attached::start(&node, &["-i", "cat"]);
    third.write("five\n");
    assert_eq!(third.wait_output("five\n"), "got five\n");
    third.kill();
    let log = node.wait_log("cat", "c", "no five");
    let got: Vec<_> = log.lines().filter(|line| line.starts_with("got")).collect();
    assert_eq!(got, ["got one", "got two", "got three", "got four", "got five"]);
    assert!(!log.contains("end"));
    node.finish();
}

#[test]
fn the_beginning_of_a_line_is_seen_before_its_end() {
    needs_root!();
    let node = Node::start();
    node.run(&once("prompt", "read x; printf 'prompt> '; read line; echo $line; exit 3"));
    node.wait_running("prompt");
    let client = Attached::start(&node, &["-i", "prompt"]);
    client.write("go\n");
    assert_eq!(client.wait_output("> "), "prompt> ");
    assert_eq!(node.logs("prompt", "c"), "", "the log has whole lines");
    client.write("typed\n");
    let answer = client.wait();
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "prompt> typed\n"), "{}", answer.stderr);
    node.wait_phase("prompt", "Failed");
    assert_eq!(node.logs("prompt", "c"), "prompt> typed\n");

    let over = node.coracle(&["attach", "prompt"]);
    assert_eq!(over.code, 1);
    assert!(
        over.stderr.contains("cannot attach a container in a completed pod; current phase is Failed"),
        "{}",
        over.stderr
    );
    node.finish();
}

#[test]
fn standard_input_that_is_once_ends_with_the_first_client() {
    needs_root!();
    let mut node = Node::start();
    for name in ["ended", "gone", "agent"] {
        node.run(&with(answering(name), "spec.containers.0.stdinOnce", json!(true)));
    }
    let wait_end = |node: &Node, name: &str| node.wait_log(name, "c", "\nend\n");

    // By the end of what it sends.
    node.wait_running("ended");
    let mut client = Attached::start(&node, &["-i", "ended"]);
    client.write("one\n");
    client.stdin = None;
    client.wait_output("got one\nend\n");
    wait_end(&node, "ended");
    client.kill();
    // By its own end; a client without input and one that comes second do not count.
    node.wait_running("gone");
    let watching = Attached::start(&node, &["gone"]);
    let client = Attached::start(&node, &["-i", "gone"]);
    wait_until("both clients to be attached", SOON, || {
        client.write("one\n");
        watching.output().contains("got one\n")
    });
    let second = Attached::start(&node, &["-i", "gone"]);
    second.write("lost\n");
    wait_until("the second client to be attached", SOON, || {
        client.write("two\n");
        second.output().contains("got two\n")
    });
    second.kill();
    client.kill();
    let output = watching.wait_output("\nend\n");
    assert!(!output.contains("lost"), "{output}");
    watching.kill();

    // By the end of the agent.
    node.wait_running("agent");
    let client = Attached::start(&node, &["-i", "agent"]);
    client.write("one\n");
    client.wait_output("got one\n");
    node.kill_agent();
    let answer = client.wait();
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("the connection to the agent broke"), "{}", answer.stderr);
    node.start_agent();
    wait_end(&node, "agent");
    node.finish();
}

#[test]
fn an_agent_that_is_killed_takes_nobody_with_it_but_its_clients() {
    needs_root!();
    let mut node = Node::start();
    node.run(&answering("cat"));
    let seen = node.wait_running("cat");
    let pid = node.container_pid(&seen, "c");
    let client = Attached::start(&node, &["-i", "cat"]);
    client.write("one\n");
    client.wait_output("got one\n");
    node.kill_agent();
    assert_eq!(client.wait().code, 1);
    node.start_agent();
    let client = Attached::start(&node, &["-i", "cat"]);
    client.write("two\n");
    assert_eq!(client.wait_output("two\n"), "got two\n");
    client.kill();
    assert_eq!(node.container_pid(&node.wait_running("cat"), "c"), pid);
    let log = node.wait_log("cat", "c", "no two");
    assert_eq!(log.matches("got one").count(), 1, "{log}");
    node.finish();
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    needs_root!();
    const LINES: usize = 1_500_000;
    let node = Node::start_with("containerLogMaxSize: 64Mi\n");
    node.run(&once("counter", &format!("read x; read x; seq 1 {LINES}; echo all")));
    node.wait_running("counter");
    let quick = Attached::start(&node, &["-i", "counter"]);
    quick.write("go\n");
    let mut command = node.command(&["attach", "-i", "counter"]);
    let mut slow =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut slow_stdin = slow.stdin.take().unwrap();
    slow_stdin.write_all(b"go\n").unwrap();
    node.wait_phase("counter", "Succeeded");
    let mut seen = String::new();
    slow.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    assert!(expected.starts_with(&seen), "what it saw is whole as far as it goes");
    assert!(seen.len() < expected.len());
    drop(slow_stdin);
    let answer = Answer::from(slow.wait_with_output().unwrap());
    assert_eq!(answer.code, 1);
    assert!(answer.stderr.contains("was not read as fast as it came"), "{}", answer.stderr);
    // Whether the other one kept up is its own affair: it is never shown a part for the whole.
    let quick = quick.wait();
    assert!(quick.code == 1 || quick.stdout == expected + "all\n", "{}", quick.stderr);
    assert_eq!(node.coracle_ok(&["logs", "--tail", "1", "counter"]), "all\n");
    node.finish();
}

#[test]
fn a_client_sees_every_line_across_rotations() {
    needs_root!();
    let node = Node::start_with("containerLogMaxSize: 64Ki\ncontainerLogMaxFiles: 3\n");
    let script = "read x; i=0; while [ $i -lt 200 ]; do seq $((i*100+1)) $((i*100+100)); usleep 5000; i=$((i+1)); done";
    node.run(&once("counter", script));
    node.wait_running("counter");
    let client = Attached::start(&node, &["-i", "counter"]);
    client.write("go\n");
    let answer = client.wait();
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(answer.stdout == expected, "a line was lost, doubled or torn");
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(node.log_files(&node.wait_phase("counter", "Succeeded"), "c").len() > 1, "it was rotated");
    node.finish();
}

#[test]
fn a_terminal_is_lent_and_left() {
    needs_root!();
    let node = Node::start();
    // A line that is typed is echoed by the container's own terminal.
    let script = "trap 'stty size' WINCH; while :; do read line && echo got $line; done";
    let terminal = with(pod("shell", vec![shell("c", script)]), "spec.containers.0.stdin", json!(true));
    node.run(&with(terminal, "spec.containers.0.tty", json!(true)));
    let seen = node.wait_running("shell");
    let pid = node.container_pid(&seen, "c");
    // script(1) gives the command a terminal of its own, whose size stty sets first.
    let coracle = coracle_tests::node::binary();
    let flags = node.flags().join(" ");
    let line = format!("stty rows 33 cols 77; {} {flags} attach -it shell", coracle.display());
    let mut command = node.machine().command("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut entry = command.spawn().unwrap();
    let stdin = entry.stdin.take();
    let stdout = collect(entry.stdout.take().unwrap());
    let stderr = collect(entry.stderr.take().unwrap());
    let user = Attached { entry, stdin, stdout, stderr };
    // Its size is told twice, so that the screen is drawn again.
    user.wait_output("33 77\r\n");
    user.write("hello\r");
    user.wait_output("hello\r\ngot hello\r\n");
    // Another one sees the same, as it comes through the terminal.
    let watching = Attached::start(&node, &["shell"]);
    user.write("again\r");
    user.wait_output("got again\r\n");
    wait_until("the other client to be attached", SOON, || {
        user.write("more\r");
        watching.output().contains("got more\r\n")
    });
    watching.kill();
    // Half of the keys that leave it is passed on once it is known to be no more.
    user.write("\x10x\r");
    user.wait_output("\x10x\r\n");
    user.write("\x10\x11");
    let answer = user.wait();
    assert_eq!(answer.code, 0, "{}", answer.stdout);
    let resume = "Session ended, resume using 'coracle attach shell -c c -n default -i -t' command";
    assert!(answer.stdout.trim_end().ends_with(resume), "{}", answer.stdout);
    assert_eq!(node.container_pid(&node.wait_running("shell"), "c"), pid, "it runs on");
    node.wait_log("shell", "c", "got more");
    node.finish();
}

#[test]
fn what_a_container_lacks_is_said() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("deaf", vec![shell("c", "while :; do echo tick; usleep 20000; done")]));
    node.wait_running("deaf");
    let client = Attached::start(&node, &["-it", "deaf"]);
    client.wait_output("tick\n");
    let errors = client.stderr.lock().unwrap().clone();
    assert!(errors.contains("error: Unable to use a TTY - container c did not allocate one\n"), "{errors}");
    assert!(errors.contains("error: Unable to use stdin - container c has none"), "{errors}");
    client.kill();
    node.finish();
}
