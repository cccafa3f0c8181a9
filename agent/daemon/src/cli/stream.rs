//! Follows the logs of every container of a node as it comes and goes, on one output.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use coracle_server::client::{Client, ClientError, ContainerStatus, LogOptions, Pod, WatchEventType};
use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

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
/// terminal, from their beginning on. Returns once the agent ended and everything was printed.
///
/// # Errors
///
/// When standard output cannot be written.
pub(crate) async fn print_logs(client: Client) -> Result<(), ClientError> {
    let mut watch = client.watch_pods().await?;
    let colour = style::wanted(&io::stdout());
    let output = Arc::new(Mutex::new(io::stdout()));
    let mut known = BTreeSet::new();
    let mut colours: Vec<(String, String)> = Vec::new();
    let mut printing = JoinSet::new();
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            Some(ended) = printing.join_next() => {
                match ended {
                    Ok(Err(error)) => return Err(ClientError::Connection(Box::new(error))),
                    _ => continue,
                }
            }
        };
        // The agent's end is the end of its pods: what is still being printed is all there is.
        let Some(Ok(event)) = event else { break };
        if event.kind == WatchEventType::Deleted {
            known.retain(|run: &Run| run.uid != event.pod.metadata.uid);
            continue;
        }
        for run in runs(&event.pod).filter(|run| known.insert(run.clone())) {
            let stream = (run.pod.clone(), run.container.clone());
            let number = colours.iter().position(|it| *it == stream).unwrap_or_else(|| {
                colours.push(stream);
                colours.len() - 1
            });
            let style = colour.then_some(Style::Nth(number));
            let prefixer = Prefixer::new(&format!("{}/{} |", run.pod, run.container), style);
            printing.spawn(print(client.clone(), run, prefixer, Arc::clone(&output)));
        }
    }
    while let Some(ended) = printing.join_next().await {
        if let Ok(Err(error)) = ended {
            return Err(ClientError::Connection(Box::new(error)));
        }
    }
    Ok(())
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
