//! `coracle get pods`.

use std::io::{self, Write};
use std::process::ExitCode;

use coracle_server::client::{Client, Pod};

use super::Get;
use super::print::{Look, Printer, Shown};
use crate::cli::age::age;
use crate::cli::summary::Summary;
use crate::cli::table::Cell;

// === impl Get ===

impl Get {
    pub(super) async fn pods(&self, client: &Client) -> anyhow::Result<ExitCode> {
        let mut pods: Vec<Pod> = client.pods().await?;
        pods.retain(|pod| self.wants(pod));
        let mut printer = Printer::new(&self.print, self.all_namespaces);
        let complete = self.list(&pods, &mut printer)?;
        warn(client).await?;
        if self.print.watch {
            self.follow(client.watch_pods().await?, &pods, &mut printer).await?;
        }
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A manifest nobody can use is why a pod is not there: said beside the pods, on standard error.
async fn warn(client: &Client) -> anyhow::Result<()> {
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

// === impl Pod ===

impl Shown for Pod {
    const RESOURCE: &'static str = "pods";
    const SINGULAR: &'static str = "pod";
    const ITS_END_IS_NEWS: bool = true;

    fn header(wide: bool) -> &'static [&'static str] {
        const HEADER: [&str; 9] =
            ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"];
        if wide { &HEADER } else { &HEADER[..5] }
    }

    fn row(&self, Look { wide, now, colour }: Look) -> Vec<Cell> {
        let summary = Summary::of(self);
        let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
        let mut row: Vec<Cell> = vec![
            self.metadata.name.as_str().into(),
            format!("{}/{}", summary.ready.0, summary.ready.1).into(),
            Cell::styled(summary.status.as_str(), colour.then(|| summary.style())),
            summary.restarts(now).into(),
            age(self.metadata.creation_timestamp, now).into(),
        ];
        if wide {
            let gates = self.spec.readiness_gates.len();
            row.extend([
                or_none(&self.status.pod_ip).into(),
                or_none(&self.spec.node_name).into(),
                or_none(&self.status.nominated_node_name).into(),
                if gates == 0 { "<none>".to_owned() } else { format!("0/{gates}") }.into(),
            ]);
        }
        row
    }

    fn identity(&self) -> String {
        self.metadata.uid.clone()
    }
}
