//! qemu's monitor: the QEMU Machine Protocol (`docs/interop/qmp-spec` of qemu).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wait::{SOON, wait_until};

/// A connection to a qemu that was just started.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Takes up the connection: reads the greeting and asks for no extension.
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("sockets have time-outs");
        let mut monitor = Self { stream: BufReader::new(stream) };
        let greeting = monitor.line();
        assert!(greeting["QMP"].is_object(), "no monitor greets so: {greeting}");
        monitor.execute("qmp_capabilities", &json!({}));
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("qemu answers its monitor");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?} of qemu's monitor"))
    }

    /// Executes a command that must succeed; what it returned.
    #[track_caller]
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{request}").expect("qemu has a monitor");
        loop {
            // Between them come events, which nobody waits for.
            let mut answer = self.line();
            assert!(answer.get("error").is_none(), "qemu's monitor, {command}: {}", answer["error"]);
            if answer.get("return").is_some() {
                return answer["return"].take();
            }
        }
    }

    /// Memory goes to fixed places of the file, pages without content to none: that is read in no time.
    fn map_memory(&mut self) {
        let capabilities = json!([{"capability": "mapped-ram", "state": true}]);
        self.execute("migrate-set-capabilities", &json!({"capabilities": capabilities}));
    }

    /// Stops the machine and saves its memory and devices to a file, and ends qemu.
    pub(super) fn save(&mut self, file: &Path) {
        self.execute("stop", &json!({}));
        self.map_memory();
        self.execute("migrate", &json!({"uri": format!("file:{}", file.display())}));
        wait_until("the VM to be saved", SOON * 10, || {
            let state = self.execute("query-migrate", &json!({}));
            assert_ne!(state["status"], "failed", "the VM cannot be saved: {state}");
            state["status"] == "completed"
        });
        self.execute("quit", &json!({}));
    }

    /// Goes on with what was saved to a file; for a qemu that waits for it.
    pub(super) fn restore(&mut self, file: &Path) {
        self.map_memory();
        self.execute("migrate-incoming", &json!({"uri": format!("file:{}", file.display())}));
        let mut state = Value::Null;
        wait_until("the VM to be restored", SOON * 4, || {
            state = self.execute("query-status", &json!({}))["status"].take();
            state != "inmigrate"
        });
        if state != "running" {
            self.execute("cont", &json!({}));
        }
    }
}
