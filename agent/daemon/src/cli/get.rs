//! `coracle get`.

mod configs;
mod events;
mod nodes;
mod pods;
mod print;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use coracle_server::client::{Client, ClientError, Object, WatchEvent, WatchEventType};
use futures_util::{Stream, StreamExt};

use self::events::EventType;
use self::print::{Printer, Shown};
use super::target::{Involved, Kind, Resource, Scope, not_found};

/// Show pods, what happened, ConfigMaps, Secrets and the node
///
/// Prints one line per object; with -o, whole objects.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle get pods                  Pods of the namespace default
  coracle get pods -A -o wide       Every pod of the node, with its address
  coracle get pods -w               Print a line whenever a pod changes
  coracle get pod web -o yaml       One pod, with all that is known of it
  coracle get events -A             What happened to pods and to the node within the last hour
  coracle get events --for pod/web -w
                                    What happened to a pod, and what happens from now on
  coracle get configmaps -o yaml    The ConfigMaps pods can be made of
  coracle get secrets               The Secrets, without their values
  coracle get node                  The node, and how many devices pods can ask for")]
pub(super) struct Get {
    /// pods, pod/NAME, events, configmaps, secrets, or nodes
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
    /// Events: only those of this object, such as pod/web or node/NAME
    #[arg(long = "for", value_name = "KIND/NAME", value_parser = Involved::parse)]
    involved: Option<Involved>,
    /// Events: only those of these types
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_enum, ignore_case = true)]
    types: Vec<EventType>,
    #[command(flatten)]
    print: Print,
}

/// How objects are printed.
#[derive(Debug, Args)]
struct Print {
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
    /// One line per object
    Table,
    /// One longer line per object
    Wide,
    /// The objects
    Json,
    /// The objects
    Yaml,
    /// KIND/NAME
    Name,
}

// === impl Get ===

impl Get {
    pub(super) async fn execute(mut self, client: &Client) -> anyhow::Result<ExitCode> {
        self.names.extend(self.resource.name.take());
        match self.resource.kind {
            Kind::Pods | Kind::ConfigMaps | Kind::Secrets | Kind::Nodes
                if self.involved.is_some() || !self.types.is_empty() =>
            {
                bail!("--for and --types choose among events: coracle get events");
            }
            Kind::ConfigMaps | Kind::Secrets | Kind::Nodes if self.print.watch => {
                bail!("--watch is for pods and events");
            }
            Kind::ConfigMaps => self.configs(client.config_maps().await?),
            Kind::Secrets => self.configs(client.secrets().await?),
            Kind::Nodes => self.nodes(client.nodes().await?),
            Kind::Pods => self.pods(client).await,
            Kind::Events => self.events(client).await,
        }
    }

    /// Prints what there is of a kind. Whether everything that was named is there.
    fn list<T: Shown>(&self, objects: &[T], printer: &mut Printer<'_, T>) -> anyhow::Result<bool> {
        let is_missing = |name: &&String| objects.iter().all(|one| one.metadata().name != **name);
        let missing: Vec<&String> = self.names.iter().filter(is_missing).collect();
        if let ([name], true) = (missing.as_slice(), self.names.len() == 1) {
            return Err(not_found(T::RESOURCE, name));
        }
        printer.all(objects, self.names.len() == 1, &mut io::stdout().lock())?;
        for name in &missing {
            writeln!(io::stderr(), "{}", not_found(T::RESOURCE, name))?;
        }
        let whole = matches!(self.print.output, Output::Json | Output::Yaml);
        if objects.is_empty() && missing.is_empty() && !self.print.watch && !whole {
            let place = if self.all_namespaces {
                String::new()
            } else {
                format!(" in {} namespace", self.scope.namespace)
            };
            writeln!(io::stderr(), "No resources found{place}.")?;
        }
        Ok(missing.is_empty())
    }

    /// Prints what changes from then on, without end.
    async fn follow<T: Shown>(
        &self,
        mut watch: impl Stream<Item = Result<WatchEvent<T>, ClientError>> + Unpin,
        listed: &[T],
        printer: &mut Printer<'_, T>,
    ) -> anyhow::Result<()> {
        let version = |one: &T| one.metadata().resource_version.clone();
        let mut known: BTreeMap<_, _> = listed.iter().map(|one| (one.identity(), version(one))).collect();
        while let Some(event) = watch.next().await {
            let WatchEvent { kind, object } = event?;
            let news = match kind {
                WatchEventType::Deleted => {
                    known.remove(&object.identity());
                    T::ITS_END_IS_NEWS
                }
                _ => known.insert(object.identity(), version(&object)) != Some(version(&object)),
            };
            if news && self.wants(&object) {
                printer.one(&object, &mut io::stdout().lock())?;
            }
        }
        Ok(())
    }

    fn wants(&self, object: &impl Object) -> bool {
        let metadata = object.metadata();
        (self.all_namespaces || metadata.namespace == self.scope.namespace)
            && (self.names.is_empty() || self.names.contains(&metadata.name))
    }
}
