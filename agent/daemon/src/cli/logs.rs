//! `coracle logs`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use coracle_server::client::{Bytes, Client, LogOptions};
use futures_util::future::try_join_all;
use futures_util::stream::LocalBoxStream;
use futures_util::{StreamExt, TryStreamExt};
use jiff::SignedDuration;
use tokio::sync::Mutex;

use super::follow::follow;
use super::prefix::Prefixer;
use super::style::{self, Style};
use super::target::{Scope, container, pod, pod_name};

/// Print the log of a container
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle logs web                     The log of the pod's only, or first, container
  coracle logs web -c shell -f         Go on as the container writes
  coracle logs web -p                  Of the run before the last restart
  coracle logs web --tail 20 --since 1h --timestamps
  coracle logs web --all-containers --prefix -f")]
pub(super) struct Logs {
    /// The pod
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The container
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_containers")]
    container: Option<String>,
    /// Every container of the pod
    #[arg(long)]
    all_containers: bool,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Of the run before
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 is all
    #[arg(long, default_value_t = -1, hide_default_value = true, value_name = "LINES", allow_negative_numbers = true)]
    tail: i64,
    /// Only what is newer than so long, such as 5s, 2m or 3h
    #[arg(long, value_name = "DURATION", value_parser = since, conflicts_with = "since_time")]
    since: Option<u64>,
    /// Only what is newer than this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<String>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Only so many bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    limit_bytes: Option<u64>,
    /// Begin each line with pod and container
    #[arg(long)]
    prefix: bool,
}

// === impl Logs ===

impl Logs {
    pub(super) async fn execute(self, client: &Client) -> anyhow::Result<ExitCode> {
        let pod = pod(client, &self.scope.namespace, &self.pod).await?;
        let containers: Vec<String> = if self.all_containers {
            let spec = &pod.spec;
            let all = spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
            all.map(|it| it.name.clone()).collect()
        } else {
            vec![container(&pod, self.container.as_deref())?]
        };
        let options = LogOptions {
            follow: self.follow,
            previous: self.previous,
            since_seconds: self.since,
            since_time: self.since_time.clone(),
            timestamps: self.timestamps,
            tail_lines: u64::try_from(self.tail).ok(),
            limit_bytes: self.limit_bytes,
            attempt: None,
        };
        let output = Arc::new(Mutex::new(io::stdout()));
        if self.follow {
            // Side by side, as the containers write.
            let printing = containers.iter().enumerate();
            try_join_all(printing.map(|(n, name)| self.print(client, name, n, &options, &output))).await?;
        } else {
            for (n, name) in containers.iter().enumerate() {
                self.print(client, name, n, &options, &output).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn print(
        &self,
        client: &Client,
        container: &str,
        number: usize,
        options: &LogOptions,
        output: &Mutex<io::Stdout>,
    ) -> anyhow::Result<()> {
        let namespace = &self.scope.namespace;
        let mut log: LocalBoxStream<'_, anyhow::Result<Bytes>> = if options.follow {
            let place = [namespace, &self.pod, container].map(|name| name.to_owned());
            follow(client, place, options.clone()).await?.boxed_local()
        } else {
            client.logs(namespace, &self.pod, container, options).await?.err_into().boxed_local()
        };
        let style = style::wanted(&io::stdout()).then_some(Style::Nth(number));
        let mut prefixer =
            self.prefix.then(|| Prefixer::new(&format!("[pod/{}/{container}]", self.pod), style));
        while let Some(piece) = log.next().await {
            let piece = piece?;
            let mut output = output.lock().await;
            match &mut prefixer {
                Some(prefixer) => prefixer.push(&piece, &mut *output)?,
                None => output.write_all(&piece)?,
            }
            output.flush()?;
        }
        if let Some(prefixer) = &mut prefixer {
            prefixer.finish(&mut *output.lock().await)?;
        }
        Ok(())
    }
}

/// Whole seconds of a duration as Go and Kubernetes write it.
fn since(text: &str) -> Result<u64, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a duration such as 5s, 2m or 1h30m"))?;
    match u64::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        // What is shorter than a second is rounded up, as kubectl does.
        Ok(_) if duration.is_positive() => Ok(1),
        _ => Err("must be greater than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_kubectl() {
        for (text, seconds) in
            [("5s", 5), ("2m", 120), ("1h30m", 5400), ("1.5h", 5400), ("100ms", 1), ("24h", 86400)]
        {
            assert_eq!(since(text), Ok(seconds), "{text}");
        }
        for bad in ["", "5", "0s", "-5s", "x", "1y2"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
