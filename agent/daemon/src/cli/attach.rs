//! `coracle attach`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use coracle_server::Outcome;
use coracle_server::client::{AttachOptions, Client, Pod};

use super::detach::DetachKeys;
use super::session::{Ended, Session, killed};
use super::target::{Scope, container, pod, pod_name};
use super::terminal::is_terminal;

/// Attach to a running container
///
/// Shows what the container's program writes from now on and, with -i, passes standard input to it. Ends
/// with the container, or when it is interrupted; the container runs on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle attach web                       What the pod's only, or first, container writes
  coracle attach -it web -c shell          Its terminal, if it has one: Ctrl-P Ctrl-Q leaves it
  echo reload | coracle attach -i web      A line to its standard input, if it has one")]
pub(super) struct Attach {
    /// The pod
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input to the container
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal (with -i)
    #[arg(short, long)]
    tty: bool,
    /// Print nothing but what the container writes
    #[arg(short, long)]
    quiet: bool,
    /// Keys that leave a terminal: characters and ctrl-<letter>, with commas between them
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT, value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
}

// === impl Attach ===

impl Attach {
    /// To a container of a pod: whether standard input is passed on, there is a terminal, and it is to be quiet.
    pub(super) fn to(
        pod: &str,
        scope: &Scope,
        container: &str,
        (stdin, tty, quiet): (bool, bool, bool),
    ) -> Self {
        let (pod, container) = (pod.to_owned(), Some(container.to_owned()));
        Self { pod, scope: scope.clone(), container, stdin, tty, quiet, detach_keys: DetachKeys::default() }
    }

    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        let namespace = &self.scope.namespace;
        let pod = pod(client, namespace, &self.pod).await?;
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            anyhow::bail!(
                "cannot attach a container in a completed pod; current phase is {}",
                pod.status.phase
            );
        }
        let container = container(&pod, self.container.as_deref())?;
        self.attach(client, &pod, &container).await
    }

    /// Attaches to a container of this pod, until one of them ends.
    pub(super) async fn attach(
        self,
        client: &Client,
        pod: &Pod,
        container: &str,
    ) -> anyhow::Result<ExitCode> {
        let namespace = &self.scope.namespace;
        let (stdin, raw) = self.streams(pod, container)?;
        self.say(
            "All commands and output from the session will be recorded in container logs, including \
             credentials and sensitive information passed through the command prompt.\n\
             If you don't see a command prompt, try pressing enter.",
        )?;
        let options = AttachOptions { stdin, tty: raw };
        let (input, outputs) = client.attach(namespace, &self.pod, container, options).await?;
        let detach = raw.then(|| self.detach_keys.clone());
        match (Session { stdin, raw, redraw: true, detach }).run(input, outputs).await? {
            Ended::Killed(signal) => return Ok(killed(signal)),
            Ended::Program(status) if status.status == Outcome::Failure => anyhow::bail!("{status}"),
            Ended::Program(_) | Ended::Detached => {}
        }
        if raw && !self.quiet {
            let name = &self.pod;
            writeln!(
                io::stdout(),
                "Session ended, resume using 'coracle attach {name} -c {container} -n {namespace} -i -t' command"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Whether standard input is passed on, and whether it is a terminal that stands for the container's.
    fn streams(&self, pod: &Pod, container: &str) -> anyhow::Result<(bool, bool)> {
        let spec = &pod.spec;
        let all = spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers);
        let (has_stdin, has_tty) =
            all.filter(|it| it.name == container).map(|it| (it.stdin, it.tty)).next().unwrap_or_default();
        if self.tty && !has_tty {
            self.say(&format!("error: Unable to use a TTY - container {container} did not allocate one"))?;
        }
        if self.stdin && !has_stdin {
            self.say(&format!(
                "error: Unable to use stdin - container {container} has none (stdin: true gives it one)"
            ))?;
        }
        let stdin = self.stdin && has_stdin;
        let raw = stdin && has_tty && is_terminal();
        if stdin && has_tty && !raw {
            self.say("Unable to use a TTY - input is not a terminal or the right kind of file")?;
        }
        Ok((stdin, raw))
    }

    fn say(&self, text: &str) -> io::Result<()> {
        if self.quiet { Ok(()) } else { writeln!(io::stderr(), "{text}") }
    }
}
