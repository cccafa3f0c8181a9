//! `coracle get events`.

use std::process::ExitCode;

use clap::ValueEnum;
use coracle_server::client::{Client, Event, EventOptions};

use super::Get;
use super::print::{Look, Printer, Shown};
use crate::cli::age::age;
use crate::cli::style::Style;
use crate::cli::table::Cell;

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(super) enum EventType {
    /// As it should be
    Normal,
    /// Something went wrong
    Warning,
}

// === impl Get ===

impl Get {
    pub(super) async fn events(&self, client: &Client) -> anyhow::Result<ExitCode> {
        let options = EventOptions {
            namespace: (!self.all_namespaces).then(|| self.scope.namespace.clone()),
            kind: self.involved.as_ref().map(|it| it.kind.to_owned()),
            name: self.involved.as_ref().map(|it| it.name.clone()),
            uid: None,
            r#type: self.only_type().map(|it| it.as_str().to_owned()),
        };
        let mut events: Vec<Event> = client.events(&options).await?;
        events.retain(|event| self.wants(event));
        let mut printer = Printer::new(&self.print, self.all_namespaces);
        let complete = self.list(&events, &mut printer)?;
        if self.print.watch {
            self.follow(client.watch_events(&options).await?, &events, &mut printer).await?;
        }
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The type all events are to have; both are no choice.
    fn only_type(&self) -> Option<EventType> {
        let first = *self.types.first()?;
        self.types.iter().all(|it| *it == first).then_some(first)
    }
}

// === impl EventType ===

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

// === impl Event ===

impl Shown for Event {
    const RESOURCE: &'static str = "events";
    const SINGULAR: &'static str = "event";
    // Nothing happens when an event is kept no longer.
    const ITS_END_IS_NEWS: bool = false;

    fn header(wide: bool) -> &'static [&'static str] {
        if wide {
            &[
                "LAST SEEN",
                "TYPE",
                "REASON",
                "OBJECT",
                "SUBOBJECT",
                "SOURCE",
                "MESSAGE",
                "FIRST SEEN",
                "COUNT",
                "NAME",
            ]
        } else {
            &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
        }
    }

    fn row(&self, Look { wide, now, colour }: Look) -> Vec<Cell> {
        let object = &self.involved_object;
        let is_warning = self.r#type == EventType::Warning.as_str();
        let mut row: Vec<Cell> = vec![
            age(self.last_timestamp, now).into(),
            Cell::styled(self.r#type.as_str(), (colour && is_warning).then_some(Style::Bad)),
            self.reason.as_str().into(),
            format!("{}/{}", object.kind.to_lowercase(), object.name).into(),
        ];
        if wide {
            row.push(object.field_path.as_str().into());
            row.push(match self.source.host.as_str() {
                "" => self.source.component.as_str().into(),
                host => format!("{}, {host}", self.source.component).into(),
            });
        }
        row.push(self.message.trim().into());
        if wide {
            row.push(age(self.first_timestamp, now).into());
            row.push(self.count.to_string().into());
            row.push(self.metadata.name.as_str().into());
        }
        row
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}
