//! `coracle get`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use coracle_server::client::{Client, Pod, WatchEventType};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::age;
use super::style;
use super::summary::Summary;
use super::table::{Cell, Table};
use super::target::{Resource, Scope, not_found};

/// Show pods
///
/// Prints one line per pod; with -o, whole objects.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle get pods                  Pods of the namespace default
  coracle get pods -A -o wide       Every pod of the node, with its address
  coracle get pods -w               Print a line whenever a pod changes
  coracle get pod web -o yaml       One pod, with all that is known of it")]
pub(super) struct Get {
    /// pods, or pod/NAME
    #[arg(value_name = "RESOURCE", value_parser = Resource::parse)]
    resource: Resource,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table, hide_default_value = true)]
    output: Output,
    /// Go on and print what changes
    #[arg(short, long)]
    watch: bool,
    /// Print no header
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line per pod
    Table,
    /// One longer line per pod
    Wide,
    /// The objects
    Json,
    /// The objects
    Yaml,
    /// pod/NAME
    Name,
}

/// Prints pods, one after another or a few at once.
struct Printer<'a> {
    options: &'a Get,
    table: Table,
    colour: bool,
    headed: bool,
}

// === impl Get ===

impl Get {
    pub(super) async fn execute(mut self, client: &Client) -> anyhow::Result<ExitCode> {
        self.names.extend(self.resource.name.take());
        let pods: Vec<Pod> = client.pods().await?.into_iter().filter(|pod| self.wants(pod)).collect();
        let missing: Vec<&String> =
            self.names.iter().filter(|name| pods.iter().all(|pod| pod.metadata.name != **name)).collect();
        if let ([name], true) = (missing.as_slice(), self.names.len() == 1) {
            return Err(not_found(name));
        }
        let mut printer = Printer::new(&self);
        printer.all(&pods, &mut io::stdout().lock())?;
        for name in &missing {
            writeln!(io::stderr(), "{}", not_found(name))?;
        }
        if pods.is_empty()
            && missing.is_empty()
            && !self.watch
            && self.output != Output::Json
            && self.output != Output::Yaml
        {
            let place = if self.all_namespaces {
                String::new()
            } else {
                format!(" in {} namespace", self.scope.namespace)
            };
            writeln!(io::stderr(), "No resources found{place}.")?;
        }
        self.warn(client).await?;
        if self.watch {
            self.follow(client, &pods, &mut printer).await?;
        }
        Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn wants(&self, pod: &Pod) -> bool {
        (self.all_namespaces || pod.metadata.namespace == self.scope.namespace)
            && (self.names.is_empty() || self.names.contains(&pod.metadata.name))
    }

    /// A manifest nobody can use is why a pod is not there: said beside the pods, on standard error.
    async fn warn(&self, client: &Client) -> anyhow::Result<()> {
        for problem in client.problems().await? {
            let path = problem.path.display().to_string();
            for line in problem.message.lines() {
                // A fault in a manifest begins with its place: file, line and column.
                let place = if line.starts_with(&path) { String::new() } else { format!("{path}: ") };
                writeln!(io::stderr(), "warning: {place}{line}")?;
            }
        }
        Ok(())
    }

    async fn follow(&self, client: &Client, listed: &[Pod], printer: &mut Printer<'_>) -> anyhow::Result<()> {
        let version = |pod: &Pod| pod.object["metadata"]["resourceVersion"].clone();
        let mut known: BTreeMap<_, _> =
            listed.iter().map(|pod| (pod.metadata.uid.clone(), version(pod))).collect();
        let mut watch = client.watch_pods().await?;
        while let Some(event) = watch.next().await {
            let event = event?;
            let uid = event.pod.metadata.uid.clone();
            let seen = match event.kind {
                WatchEventType::Deleted => {
                    known.remove(&uid);
                    false
                }
                _ => known.insert(uid, version(&event.pod)) == Some(version(&event.pod)),
            };
            if !seen && self.wants(&event.pod) {
                printer.one(&event.pod, &mut io::stdout().lock())?;
            }
        }
        Ok(())
    }
}

// === impl Printer ===

impl<'a> Printer<'a> {
    fn new(options: &'a Get) -> Self {
        let mut header = Vec::new();
        if options.all_namespaces {
            header.push("NAMESPACE");
        }
        header.extend(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        if options.output == Output::Wide {
            header.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
        }
        let colour = style::wanted(&io::stdout());
        Self { options, table: Table::new(header), colour, headed: options.no_headers }
    }

    fn all(&mut self, pods: &[Pod], out: &mut impl Write) -> anyhow::Result<()> {
        match (self.options.output, pods) {
            (Output::Json | Output::Yaml, [pod]) if !self.options.names.is_empty() => {
                self.object(&pod.object, out)?;
            }
            (Output::Json | Output::Yaml, _) if self.options.watch => {
                pods.iter().try_for_each(|pod| self.object(&pod.object, out))?;
            }
            (Output::Json | Output::Yaml, _) => {
                let items: Vec<_> = pods.iter().map(|pod| &pod.object).collect();
                let metadata = json!({"resourceVersion": ""});
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items});
                self.object(&list, out)?;
            }
            (Output::Name, _) => {
                pods.iter().try_for_each(|pod| writeln!(out, "pod/{}", pod.metadata.name))?;
            }
            (Output::Table | Output::Wide, _) => {
                let now = Timestamp::now();
                pods.iter().for_each(|pod| self.row(pod, now));
                self.rows(out)?;
            }
        }
        Ok(out.flush()?)
    }

    fn one(&mut self, pod: &Pod, out: &mut impl Write) -> anyhow::Result<()> {
        match self.options.output {
            Output::Json | Output::Yaml => self.object(&pod.object, out)?,
            Output::Name => writeln!(out, "pod/{}", pod.metadata.name)?,
            Output::Table | Output::Wide => {
                self.row(pod, Timestamp::now());
                self.rows(out)?;
            }
        }
        Ok(out.flush()?)
    }

    fn object(&self, object: &Value, out: &mut impl Write) -> anyhow::Result<()> {
        if self.options.output == Output::Json {
            serde_json::to_writer_pretty(&mut *out, object).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            if self.options.watch {
                writeln!(out, "---")?;
            }
            out.write_all(serde_saphyr::to_string(object)?.as_bytes())?;
        }
        Ok(())
    }

    fn rows(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.table.is_empty() {
            return Ok(());
        }
        if self.headed {
            self.table.write_rows(out)?;
        } else {
            self.table.write(out)?;
        }
        self.headed = true;
        self.table.clear();
        Ok(())
    }

    fn row(&mut self, pod: &Pod, now: Timestamp) {
        let summary = Summary::of(pod);
        let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
        let mut row: Vec<Cell> = Vec::new();
        if self.options.all_namespaces {
            row.push(pod.metadata.namespace.as_str().into());
        }
        row.extend([
            pod.metadata.name.as_str().into(),
            format!("{}/{}", summary.ready.0, summary.ready.1).into(),
            Cell::styled(summary.status.as_str(), self.colour.then(|| summary.style())),
            summary.restarts(now).into(),
            age(pod.metadata.creation_timestamp, now).into(),
        ]);
        if self.options.output == Output::Wide {
            let gates = pod.spec.readiness_gates.len();
            row.extend([
                or_none(&pod.status.pod_ip).into(),
                or_none(&pod.spec.node_name).into(),
                or_none(&pod.status.nominated_node_name).into(),
                if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") }.into(),
            ]);
        }
        self.table.push(row);
    }
}
