//! The program under a kubelet of another language: Python's grpcio, which is gRPC's core in C, and the published proto.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here has failed the test")]

mod machine;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use machine::Machine;

const LONG: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Kubelet {
    _process: Process,
    stdin: ChildStdin,
    said: Receiver<Value>,
}

impl Kubelet {
    fn start(machine: &Machine) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign_kubelet.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).arg(machine.plugins()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is there");
        let stdin = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (tell, said) = channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).expect("a line of JSON")).is_err() {
                    return;
                }
            }
        });
        Self { _process: Process(child), stdin, said }
    }

    /// What it says next of this kind; what it says before goes by.
    fn hear(&self, what: &str) -> Value {
        loop {
            let said =
                self.said.recv_timeout(LONG).unwrap_or_else(|error| panic!("it never said {what}: {error}"));
            if said["what"] == what {
                return said;
            }
        }
    }

    fn ask(&mut self, question: &Value) {
        writeln!(self.stdin, "{question}").expect("it listens");
    }
}

fn health(said: &Value) -> Vec<(&str, &str)> {
    let devices = said["devices"].as_array().expect("a list");
    devices
        .iter()
        .map(|it| (it["id"].as_str().expect("an id"), it["health"].as_str().expect("a health")))
        .collect()
}

#[test]
fn a_kubelet_of_another_language_is_served() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.plugins()).expect("a directory");
    machine.node("dev/ttyUSB0");
    machine.node("dev/ttyUSB1");
    let config = machine.path("plugin.yaml");
    let text = "
resources:
- name: coracle.dev/serial
  shares: 2
  devices:
  - paths:
    - path: /dev/ttyUSB*
      containerPath: /dev/serial*
";
    std::fs::write(&config, text).expect("a file");
    let mut kubelet = Kubelet::start(&machine);
    let mut program = Command::new(env!("CARGO_BIN_EXE_coracle-device-plugin"));
    program.arg("--plugins-dir").arg(machine.plugins()).arg("--device-plugin-config").arg(&config);
    program.arg("--host-root").arg(machine.path("root")).arg("--cdi-dir").arg(machine.path("cdi"));
    let mut plugin = Process(program.spawn().expect("the program starts"));

    let registered = kubelet.hear("registered");
    assert_eq!(registered["version"], "v1beta1");
    assert_eq!(registered["resource"], "coracle.dev/serial");
    assert_eq!(kubelet.hear("options"), json!({"what": "options", "pre_start": false, "preferred": true}));
    let all = ["ttyUSB0::0", "ttyUSB0::1", "ttyUSB1::0", "ttyUSB1::1"];
    assert_eq!(health(&kubelet.hear("devices")), all.map(|id| (id, "Healthy")));

    kubelet.ask(&json!({"ask": "prefer", "available": all, "must": ["ttyUSB1::1"], "size": 2}));
    assert_eq!(kubelet.hear("preferred")["ids"], json!(["ttyUSB1::1", "ttyUSB0::0"]));
    kubelet.ask(&json!({"ask": "allocate", "containers": [["ttyUSB1::1", "ttyUSB0::0"], []]}));
    let containers = kubelet.hear("allocated")["containers"].clone();
    let device = |number| json!({"container": format!("/dev/serial{number}"), "host": format!("/dev/ttyUSB{number}"), "permissions": "rw"});
    assert_eq!(containers[0]["devices"], json!([device(0), device(1)]));
    assert_eq!(containers[1]["devices"], json!([]));
    kubelet.ask(&json!({"ask": "allocate", "containers": [["ttyUSB9::0"]]}));
    assert_eq!(kubelet.hear("refused")["code"], "NOT_FOUND");
    kubelet.ask(&json!({"ask": "pre-start", "ids": ["ttyUSB0::0"]}));
    kubelet.hear("started");

    std::fs::remove_file(machine.path("root/dev/ttyUSB0")).expect("a device less");
    let expected = [(all[0], "Unhealthy"), (all[1], "Unhealthy"), (all[2], "Healthy"), (all[3], "Healthy")];
    assert_eq!(health(&kubelet.hear("devices")), expected);

    // The end of a plugin ends its stream.
    let pid = rustix::process::Pid::from_child(&plugin.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    kubelet.hear("ended");
    assert!(plugin.0.wait().expect("it ends").success());
}
