//! `coracle debug`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use coracle_server::client::{Client, ContainerState, LogOptions, Pod, WatchEventType};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};

use super::attach::Attach;
use super::follow::follow;
use super::target::{Scope, not_found, pod_name};

/// Add a container to a pod that runs, to look into it
///
/// The container (Kubernetes' ephemeral container) shares the pod's network and, with --target, sees the
/// processes of one of its containers. It is never started again, and goes with the pod.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle debug web -it --image IMAGE                  A shell, if the image runs one
  coracle debug web -it --image IMAGE --target nginx   ... that sees the processes of nginx
  coracle debug web --image IMAGE -c dump -- tcpdump   coracle logs web -c dump shows what it says")]
pub(super) struct Debug {
    /// The pod
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The image of the container
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// See the processes of this container of the pod
    #[arg(long, value_name = "CONTAINER")]
    target: Option<String>,
    /// The name of the container; one is made up
    #[arg(short, long, alias = "name", value_name = "NAME")]
    container: Option<String>,
    /// Give the container a standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Wait until the container runs, and attach to it; by default with -i
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    attach: Option<bool>,
    /// A variable of the container's environment
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable, action = ArgAction::Append)]
    env: Vec<(String, String)>,
    /// Always, IfNotPresent or Never; by default as the image's tag says
    #[arg(long, value_name = "POLICY")]
    image_pull_policy: Option<String>,
    /// What the container is allowed
    #[arg(long, value_enum, default_value_t = Profile::General)]
    profile: Profile,
    /// What follows -- are arguments of the image's entrypoint
    #[arg(long)]
    arguments_only: bool,
    /// Print nothing but what the container writes
    #[arg(short, long)]
    quiet: bool,
    /// Program and arguments, after --
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// kubectl's debugging profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// May trace processes
    General,
    /// What any container is allowed
    Baseline,
    /// What the restricted Pod Security Standard allows
    Restricted,
    /// May change the pod's network
    Netadmin,
    /// Privileged
    Sysadmin,
}

/// What becomes of a container that was added.
#[derive(Debug, PartialEq, Eq)]
enum Course {
    /// Why it does not run, as far as somebody may have to do something about it.
    Waits(Option<String>),
    Runs,
    Ended,
}

// === impl Debug ===

impl Debug {
    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        let name = self.container.clone().unwrap_or_else(made_up);
        // Before the pod can change: whatever comes is seen.
        let mut changes = client.watch_pods().await?;
        let namespace = &self.scope.namespace;
        let pod = client.add_ephemeral(namespace, &self.pod, &self.object(&name)).await?;
        if self.container.is_none() && !self.quiet {
            writeln!(io::stdout(), "Defaulting debug container name to {name}.")?;
        }
        if !self.attach.unwrap_or(self.stdin) {
            return Ok(ExitCode::SUCCESS);
        }
        let mut said = BTreeSet::new();
        let running = loop {
            let Some(event) = changes.next().await else { anyhow::bail!("the agent ended") };
            let event = event?;
            if event.object.metadata.uid != pod.metadata.uid {
                continue;
            }
            if event.kind == WatchEventType::Deleted {
                return Err(not_found("pods", &self.pod));
            }
            match course(&event.object, &name) {
                Course::Waits(Some(why)) if !self.quiet && said.insert(why.clone()) => {
                    writeln!(io::stderr(), "Warning: container {name}: {why}")?;
                }
                Course::Waits(_) => {}
                Course::Runs => break Some(event.object),
                Course::Ended => break None,
            }
        };
        match running.filter(|_| self.stdin) {
            Some(pod) => {
                let attach = Attach::to(&self.pod, &self.scope, &name, (self.stdin, self.tty, self.quiet));
                match attach.attach(client, &pod, &name).await {
                    // It may have ended before anybody was there.
                    Err(error) => {
                        let pod = &self.pod;
                        let text = "couldn't attach to pod";
                        writeln!(
                            io::stderr(),
                            "warning: {text}/{pod}, falling back to streaming logs: {error}"
                        )?;
                        self.print(client, name).await
                    }
                    attached => attached,
                }
            }
            // All it says, also what it said before anybody could attach.
            None => self.print(client, name).await,
        }
    }

    /// The `v1 EphemeralContainer`.
    fn object(&self, name: &str) -> Value {
        let mut object = Map::new();
        let mut set = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
        set("name", name.into());
        set("image", self.image.as_str().into());
        if let Some(policy) = &self.image_pull_policy {
            set("imagePullPolicy", policy.as_str().into());
        }
        if let Some(target) = &self.target {
            set("targetContainerName", target.as_str().into());
        }
        if !self.command.is_empty() {
            set(if self.arguments_only { "args" } else { "command" }, self.command.clone().into());
        }
        if !self.env.is_empty() {
            set("env", self.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect());
        }
        if self.stdin {
            set("stdin", true.into());
        }
        if self.tty {
            set("tty", true.into());
        }
        if let Some(context) = self.profile.security_context() {
            set("securityContext", context);
        }
        Value::Object(object)
    }

    /// Prints the container's log until it has ended.
    async fn print(&self, client: &Client, name: String) -> anyhow::Result<ExitCode> {
        let place = [self.scope.namespace.clone(), self.pod.clone(), name];
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut log = follow(client, place, options).await?;
        while let Some(text) = log.next().await {
            let mut out = io::stdout();
            out.write_all(&text?)?;
            out.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn course(pod: &Pod, name: &str) -> Course {
    let status = pod.status.ephemeral_container_statuses.iter().find(|status| status.name == name);
    match status.map(|status| &status.state) {
        Some(ContainerState { running: Some(_), .. }) => Course::Runs,
        Some(ContainerState { terminated: Some(_), .. }) => Course::Ended,
        Some(ContainerState { waiting: Some(waiting), .. }) if !waiting.message.is_empty() => {
            Course::Waits(Some(waiting.message.clone()))
        }
        _ => Course::Waits(None),
    }
}

/// `debugger-` and five letters and digits that spell no words.
fn made_up() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = || ALPHABET.get(fastrand::usize(..ALPHABET.len())).map_or('b', |byte| char::from(*byte));
    let letters: String = (0..5).map(|_| letter()).collect();
    format!("debugger-{letters}")
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form NAME=VALUE")),
    }
}

// === impl Profile ===

impl Profile {
    fn security_context(self) -> Option<Value> {
        match self {
            Self::General => Some(json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
            Self::Baseline => None,
            Self::Restricted => Some(json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            })),
            Self::Netadmin => Some(json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})),
            Self::Sysadmin => Some(json!({"privileged": true})),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        debug: Debug,
    }

    fn debug(words: &[&str]) -> Debug {
        Line::parse_from(["debug"].iter().chain(words)).debug
    }

    #[test]
    fn the_container_is_what_the_words_say() {
        let plain = debug(&["web", "--image", "busybox"]);
        let general = json!({"capabilities": {"add": ["SYS_PTRACE"]}});
        assert_eq!(
            plain.object("debugger"),
            json!({"name": "debugger", "image": "busybox", "securityContext": general})
        );
        assert_eq!((plain.attach, plain.stdin), (None, false));
        let all = debug(&[
            "pod/web",
            "-it",
            "--image=busybox",
            "--target",
            "web",
            "--env",
            "A=b=c",
            "--env=B=",
            "--attach=false",
            "--image-pull-policy",
            "Never",
            "--profile",
            "baseline",
            "-c",
            "x",
            "--",
            "sh",
            "-c",
            "true",
        ]);
        assert_eq!((all.attach, all.container.as_deref()), (Some(false), Some("x")));
        assert_eq!(
            all.object("x"),
            json!({
                "name": "x", "image": "busybox", "targetContainerName": "web", "imagePullPolicy": "Never",
                "command": ["sh", "-c", "true"], "stdin": true, "tty": true,
                "env": [{"name": "A", "value": "b=c"}, {"name": "B", "value": ""}],
            })
        );
        let arguments = debug(&["web", "--image=i", "--arguments-only", "--profile=sysadmin", "--", "-v"]);
        assert_eq!(
            arguments.object("x"),
            json!({"name": "x", "image": "i", "args": ["-v"], "securityContext": {"privileged": true}})
        );
        assert!(variable("A").is_err() && variable("=b").is_err());
        let name = made_up();
        assert!(name.starts_with("debugger-") && name.len() == 14, "{name}");
    }
}
