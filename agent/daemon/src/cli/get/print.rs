//! Printing objects, one after another or a few at once.

use std::io::{self, Write};
use std::marker::PhantomData;

use coracle_server::client::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Output, Print};
use crate::cli::style;
use crate::cli::table::{Cell, Table};

/// An object as it is shown.
pub(super) trait Shown: Object {
    /// As the API server names the resource: `pods`.
    const RESOURCE: &'static str;
    /// As `-o name` names the kind: `pod`.
    const SINGULAR: &'static str;
    /// Somebody who watches is told that it is gone.
    const ITS_END_IS_NEWS: bool;

    /// The columns, with those that only `-o wide` has.
    fn header(wide: bool) -> &'static [&'static str];

    /// What stands in the columns.
    fn row(&self, look: Look) -> Vec<Cell>;

    /// What it is told from others by, over time.
    fn identity(&self) -> String;
}

/// How a row is to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// With the columns of `-o wide`.
    pub(super) wide: bool,
    /// From here ages count.
    pub(super) now: Timestamp,
    /// The terminal wants colour.
    pub(super) colour: bool,
}

/// Prints objects of one kind.
pub(super) struct Printer<'a, T> {
    options: &'a Print,
    namespaces: bool,
    table: Table,
    colour: bool,
    headed: bool,
    kind: PhantomData<T>,
}

// === impl Printer ===

impl<'a, T: Shown> Printer<'a, T> {
    /// With a column for the namespace if there may be several.
    pub(super) fn new(options: &'a Print, namespaces: bool) -> Self {
        let mut header = if namespaces { vec!["NAMESPACE"] } else { Vec::new() };
        header.extend(T::header(options.output == Output::Wide));
        let colour = style::wanted(&io::stdout());
        Self {
            options,
            namespaces,
            table: Table::new(header),
            colour,
            headed: options.no_headers,
            kind: PhantomData,
        }
    }

    /// Prints what there is; the one that was asked for is no list.
    pub(super) fn all(&mut self, objects: &[T], one: bool, out: &mut impl Write) -> anyhow::Result<()> {
        match (self.options.output, objects) {
            (Output::Json | Output::Yaml, [object]) if one => self.object(object.object(), out)?,
            (Output::Json | Output::Yaml, _) if self.options.watch => {
                objects.iter().try_for_each(|object| self.object(object.object(), out))?;
            }
            (Output::Json | Output::Yaml, _) => {
                let items: Vec<_> = objects.iter().map(Object::object).collect();
                let metadata = json!({"resourceVersion": ""});
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items});
                self.object(&list, out)?;
            }
            (Output::Name, _) => objects.iter().try_for_each(|object| name(object, out))?,
            (Output::Table | Output::Wide, _) => {
                let now = Timestamp::now();
                objects.iter().for_each(|object| self.row(object, now));
                self.rows(out)?;
            }
        }
        Ok(out.flush()?)
    }

    /// Prints one more.
    pub(super) fn one(&mut self, object: &T, out: &mut impl Write) -> anyhow::Result<()> {
        match self.options.output {
            Output::Json | Output::Yaml => self.object(object.object(), out)?,
            Output::Name => name(object, out)?,
            Output::Table | Output::Wide => {
                self.row(object, Timestamp::now());
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

    fn row(&mut self, object: &T, now: Timestamp) {
        let mut row: Vec<Cell> = Vec::new();
        if self.namespaces {
            row.push(object.metadata().namespace.as_str().into());
        }
        let wide = self.options.output == Output::Wide;
        row.extend(object.row(Look { wide, now, colour: self.colour }));
        self.table.push(row);
    }
}

fn name<T: Shown>(object: &T, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}/{}", T::SINGULAR, object.metadata().name)
}
