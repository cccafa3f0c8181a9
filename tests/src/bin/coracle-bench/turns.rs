//! Programs that take turns with the node.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What does something beside the node, once each time it is told to, and says how long that took.
pub(crate) struct Turns {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Turns {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let ask = child.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self { child, ask, answers }
    }

    /// Has it done once; the times it answers with, one at least.
    pub(crate) fn take(&mut self) -> Vec<Duration> {
        self.ask.write_all(b"\n").expect("it waits for its turn");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let milliseconds = line.split_whitespace().map(|word| word.parse().expect("a number"));
        milliseconds.map(|number: f64| Duration::from_secs_f64(number / 1e3)).collect()
    }

    /// Tells it that it had its last turn, and waits for its end; what it had left to say.
    pub(crate) fn end(self) -> String {
        let Self { mut child, ask, mut answers } = self;
        drop(ask);
        let mut rest = String::new();
        answers.read_to_string(&mut rest).expect("what it says is text");
        assert!(child.wait().expect("its end").success());
        rest
    }
}
