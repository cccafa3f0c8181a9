//! `coracle get configmaps` and `coracle get secrets`.

use std::process::ExitCode;

use coracle_server::client::{ConfigMap, Secret};

use super::Get;
use super::print::{Look, Printer, Shown};
use crate::cli::table::Cell;

// === impl Get ===

impl Get {
    pub(super) fn configs<T: Shown>(&self, mut objects: Vec<T>) -> anyhow::Result<ExitCode> {
        objects.retain(|object| self.wants(object));
        let complete = self.list(&objects, &mut Printer::new(&self.print, self.all_namespaces))?;
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

// === impl ConfigMap ===

impl Shown for ConfigMap {
    const RESOURCE: &'static str = "configmaps";
    const SINGULAR: &'static str = "configmap";
    const ITS_END_IS_NEWS: bool = true;

    fn header(_: bool) -> &'static [&'static str] {
        &["NAME", "DATA"]
    }

    fn row(&self, _: Look) -> Vec<Cell> {
        let count = self.data.len() + self.binary_data.len();
        vec![self.metadata.name.as_str().into(), count.to_string().into()]
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

// === impl Secret ===

impl Shown for Secret {
    const RESOURCE: &'static str = "secrets";
    const SINGULAR: &'static str = "secret";
    const ITS_END_IS_NEWS: bool = true;

    fn header(_: bool) -> &'static [&'static str] {
        &["NAME", "TYPE", "DATA"]
    }

    fn row(&self, _: Look) -> Vec<Cell> {
        vec![
            self.metadata.name.as_str().into(),
            self.r#type.as_str().into(),
            self.data.len().to_string().into(),
        ]
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}
