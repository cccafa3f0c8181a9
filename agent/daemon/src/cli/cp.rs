//! `coracle cp`.

mod pipe;
mod receive;
mod send;
mod spec;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coracle_server::Status;
use coracle_server::client::{Client, ExecInput, ExecOptions, ExecOutput, ExecOutputs};
use tokio::task::spawn_blocking;

use self::receive::{Receiver, Skipped};
use self::spec::{Copy, RemoteFile};
use super::escape::escape;
use super::target::{Scope, container, pod};

/// Copy files and directories to and from containers
///
/// The container needs the program tar. A path on this machine has no colon; one in a container begins with
/// its pod.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle cp page.html web:/usr/share/nginx/html    A file into a directory of the container
  coracle cp site web:/srv/site -c nginx            A directory, into a named container
  coracle cp web:/var/log/app.log app.log           A file from a container
  coracle cp other/web:/etc/app conf                What is in a directory, from a pod of another namespace")]
pub(super) struct Cp {
    /// [[NAMESPACE/]POD:]PATH to copy
    #[arg(value_name = "SRC")]
    source: String,
    /// [[NAMESPACE/]POD:]PATH to copy to
    #[arg(value_name = "DST")]
    destination: String,
    #[command(flatten)]
    scope: Scope,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Do not keep owners and permissions in the container
    #[arg(long)]
    no_preserve: bool,
}

/// The container that is copied to or from.
struct Place<'a> {
    client: &'a Client,
    namespace: String,
    pod: String,
    container: String,
}

// === impl Cp ===

impl Cp {
    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        match Copy::parse(&self.source, &self.destination)? {
            Copy::ToPod(source, destination) => {
                if fs::metadata(&source).is_err() {
                    anyhow::bail!("{} doesn't exist in local filesystem", source.display());
                }
                let place = self.place(client, &destination).await?;
                to_pod(&place, source, destination, self.no_preserve).await
            }
            Copy::FromPod(source, destination) => {
                let place = self.place(client, &source).await?;
                from_pod(&place, source, destination).await
            }
        }
    }

    async fn place<'a>(&self, client: &'a Client, file: &RemoteFile) -> anyhow::Result<Place<'a>> {
        let namespace = file.namespace.clone().unwrap_or_else(|| self.scope.namespace.clone());
        let pod = pod(client, &namespace, &file.pod).await?;
        let container = container(&pod, self.container.as_deref())?;
        Ok(Place { client, namespace, pod: pod.metadata.name, container })
    }
}

async fn to_pod(
    place: &Place<'_>,
    source: PathBuf,
    mut destination: RemoteFile,
    no_preserve: bool,
) -> anyhow::Result<ExitCode> {
    // Into a directory that is there, under the name it has here.
    let inside = place.run(&["test", "-d", &destination.argument()]).await?;
    if let (Some(0), Some(name)) = (inside.exit_code(), source.file_name()) {
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", source.display()))?;
        destination.path = format!("{}/{name}", destination.path.trim_end_matches('/'));
    }
    let (directory, name) = destination.split();
    let name = PathBuf::from(name.unwrap_or_default());
    if name.as_os_str().is_empty() && !fs::metadata(&source).is_ok_and(|source| source.is_dir()) {
        anyhow::bail!("{} is a directory, or would be: name the file in it", destination.path);
    }
    let mut command = vec!["tar"];
    if no_preserve {
        command.extend(["--no-same-permissions", "--no-same-owner"]);
    }
    command.extend(["-xmf", "-", "-C", &directory]);
    let (mut input, mut outputs) = place.start(&command, true).await?;

    let (writer, mut pieces) = pipe::writer();
    let packing = spawn_blocking(move || {
        let warn = |path: &Path| say(&format!("warning: skipping special file: {path:?}"));
        send::pack(&source, &name, writer, warn)
    });
    let sending = async {
        while let Some(piece) = pieces.recv().await {
            if input.stdin(&piece).await.is_err() {
                // Whoever reads from the connection says why it broke.
                std::future::pending::<()>().await;
            }
        }
        // Only a whole archive comes to its end: tar is not to take a part for it.
        packing.await??;
        let _ = input.close_stdin().await;
        anyhow::Ok(())
    };
    let mut sending = std::pin::pin!(sending);
    let mut ending = std::pin::pin!(print(&mut outputs));
    let status = tokio::select! {
        // What tar has to say weighs more than that it does not read any more.
        status = &mut ending => status?,
        packed = &mut sending => {
            packed?;
            ending.await?
        }
    };
    finish(&status)
}

async fn from_pod(place: &Place<'_>, source: RemoteFile, destination: PathBuf) -> anyhow::Result<ExitCode> {
    let path = source.argument();
    if path.trim_end_matches('/').rsplit('/').next() == Some("..") {
        anyhow::bail!("{} leads upwards: name the directory itself", source.path);
    }
    let (_input, mut outputs) = place.start(&["tar", "cf", "-", &path], false).await?;
    let (pieces, reader) = pipe::reader();
    let hint = format!(
        "coracle exec -n {:?} {:?} -c {:?} -- tar cf - {path:?} | tar xf -",
        place.namespace, place.pod, place.container
    );
    let mut unpacking = Some(spawn_blocking(move || {
        let mut hint = Some(hint);
        let warn = |skipped: Skipped<'_>| say(&warning(&skipped, &mut hint));
        Receiver::new(&destination, spec::archived(&path), warn).unpack(reader)
    }));
    let status = loop {
        match outputs.next().await? {
            ExecOutput::Stdout(bytes) => {
                // What comes after the archive's end is padding. One that was refused need not go on.
                if pieces.send(bytes).await.is_err()
                    && let Some(unpacking) = unpacking.take()
                {
                    unpacking.await??;
                }
            }
            ExecOutput::Stderr(bytes) => print_error(&bytes)?,
            ExecOutput::Ended(status) => break status,
        }
    };
    drop(pieces);
    if let Some(unpacking) = unpacking {
        match unpacking.await? {
            // An archive that breaks off: why is in the status.
            Err(error) if status.exit_code() != Some(0) => {
                say(&format!("error: {}", crate::words::whole(&error)))
            }
            unpacked => unpacked?,
        }
    }
    finish(&status)
}

/// What is said of something that is left out. How to get links is said once.
fn warning(skipped: &Skipped<'_>, hint: &mut Option<String>) -> String {
    match skipped {
        Skipped::Outside(name) => format!(
            "warning: file {:?} is outside target destination, skipping",
            String::from_utf8_lossy(name)
        ),
        Skipped::Symlink(path, target) => {
            let consider =
                hint.take().map(|hint| format!(" (consider using \"{hint}\")")).unwrap_or_default();
            let target = String::from_utf8_lossy(target);
            format!("warning: skipping symlink: {path:?} -> {target:?}{consider}")
        }
        Skipped::Special(path) => format!("warning: skipping special file: {path:?}"),
    }
}

/// Prints what a program says until it ended.
async fn print(outputs: &mut ExecOutputs) -> anyhow::Result<Box<Status>> {
    loop {
        match outputs.next().await? {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => print_error(&bytes)?,
            ExecOutput::Ended(status) => return Ok(status),
        }
    }
}

/// The user did not ask for the program, so it may not command the terminal.
fn print_error(bytes: &[u8]) -> io::Result<()> {
    io::stderr().write_all(escape(&String::from_utf8_lossy(bytes)).as_bytes())
}

fn say(text: &str) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

fn finish(status: &Status) -> anyhow::Result<ExitCode> {
    match status.exit_code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(code) => {
            say(&format!("command terminated with exit code {code}"));
            Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
        }
        None => Err(anyhow::anyhow!("{status}")),
    }
}

// === impl Place ===

impl Place<'_> {
    async fn start(&self, command: &[&str], stdin: bool) -> anyhow::Result<(ExecInput, ExecOutputs)> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let options = ExecOptions { command, stdin, tty: false };
        Ok(self.client.exec(&self.namespace, &self.pod, &self.container, &options).await?)
    }

    /// How a program ends that is only asked for that.
    async fn run(&self, command: &[&str]) -> anyhow::Result<Box<Status>> {
        let (_input, mut outputs) = self.start(command, false).await?;
        loop {
            if let ExecOutput::Ended(status) = outputs.next().await? {
                return Ok(status);
            }
        }
    }
}
