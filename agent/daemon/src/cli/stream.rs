//! Follows the logs of every container of a node as it comes and goes, on one output.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;

use coracle_server::client::{Client, ClientError, ContainerStatus, LogOptions, Pod, WatchEventType};
use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinSet};

use super::prefix::Prefixer;
use super::style::{self, Style};

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    attempt: u32,
}

/// Prints the logs of all containers, `<pod>/<container> | <line>`, each in a colour of its own on a
/// terminal, from their beginning on. Returns once `finished` resolved, or the agent ended, and everything
/// there was by then has been printed; the logs of what still runs are followed to their end.
///
/// # Errors
///
/// When standard output cannot be written.
pub(crate) async fn print_logs(
    client: Client,
    finished: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    let mut watch = client.watch_pods().await?;
    let mut finished = pin!(finished);
    let mut printer = Printer::new(client.clone());
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            Some(ended) = printer.printing.join_next() => {
                check(ended)?;
                continue;
            }
            () = &mut finished => {
                // What came last may not have been watched yet.
                for pod in client.pods().await? {
                    printer.take_up(&pod);
                }
                break;
            }
        };
        // The agent's end is the end of its pods: what is still being printed is all there is.
        let Some(Ok(event)) = event else { break };
        match event.kind {
            WatchEventType::Deleted => printer.known.retain(|run| run.uid != event.object.metadata.uid),
            _ => printer.take_up(&event.object),
        }
    }
    while let Some(ended) = printer.printing.join_next().await {
        check(ended)?;
    }
    Ok(())
}

/// An output that is gone ends it all; anything else was told by the log itself.
fn check(ended: Result<io::Result<()>, JoinError>) -> Result<(), ClientError> {
    match ended {
        Ok(Err(error)) => Err(ClientError::Connection(Box::new(error))),
        _ => Ok(()),
    }
}

/// The logs being printed.
struct Printer {
    client: Client,
    output: Arc<Mutex<io::Stdout>>,
    coloured: bool,
    colours: Vec<(String, String)>,
    known: BTreeSet<Run>,
    printing: JoinSet<io::Result<()>>,
}

// === impl Printer ===

impl Printer {
    fn new(client: Client) -> Self {
        Self {
            client,
            output: Arc::new(Mutex::new(io::stdout())),
            coloured: style::wanted(&io::stdout()),
            colours: Vec::new(),
            known: BTreeSet::new(),
            printing: JoinSet::new(),
        }
    }

    /// Begins to print the runs of a pod that are not printed yet.
    fn take_up(&mut self, pod: &Pod) {
        for run in runs(pod) {
            if !self.known.insert(run.clone()) {
                continue;
            }
            let stream = (run.pod.clone(), run.container.clone());
            let number = self.colours.iter().position(|it| *it == stream).unwrap_or_else(|| {
                self.colours.push(stream);
                self.colours.len() - 1
            });
            let style = self.coloured.then_some(Style::Nth(number));
            let prefixer = Prefixer::new(&format!("{}/{} |", run.pod, run.container), style);
            self.printing.spawn(print(self.client.clone(), run, prefixer, Arc::clone(&self.output)));
        }
    }
}

/// Every run of the pod's containers there may be a log of: those a watcher was too slow to see, too.
fn runs(pod: &Pod) -> impl Iterator<Item = Run> {
    let status = &pod.status;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    all.flat_map(move |container| {
        attempts(container).map(move |attempt| Run {
            uid: pod.metadata.uid.clone(),
            namespace: pod.metadata.namespace.clone(),
            pod: pod.metadata.name.clone(),
            container: container.name.clone(),
            attempt,
        })
    })
}

fn attempts(container: &ContainerStatus) -> std::ops::Range<u32> {
    // A container that waits has at most been created with its count; with a run behind it, that has it.
    let state = &container.state;
    let started =
        state.running.is_some() || state.terminated.is_some() || container.last_state.terminated.is_some();
    0..container.restart_count + u32::from(started)
}

async fn print(
    client: Client,
    run: Run,
    mut prefixer: Prefixer,
    output: Arc<Mutex<io::Stdout>>,
) -> io::Result<()> {
    let options = LogOptions { follow: true, attempt: Some(run.attempt), ..LogOptions::default() };
    // A run that left no log has nothing to be printed.
    let Ok(mut log) = client.logs(&run.namespace, &run.pod, &run.container, &options).await else {
        return Ok(());
    };
    while let Some(Ok(piece)) = log.next().await {
        let mut output = output.lock().await;
        prefixer.push(&piece, &mut *output)?;
        output.flush()?;
    }
    prefixer.finish(&mut *output.lock().await)
}
