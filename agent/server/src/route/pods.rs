//! `/pods`, once or watched.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use coracle_manifest::encode;
use serde::Deserialize;

use super::Shared;
use super::watch::{Watched, watch};
use crate::{PodEntry, Status, object};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Options {
    watch: bool,
}

/// `GET /pods`: a `v1 PodList`; with `watch=true` one JSON watch event a line, without end, beginning with
/// an `ADDED` for every pod there is.
pub(super) async fn list(
    State(node): State<Shared>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Status> {
    let Query(options) = options.map_err(|error| Status::bad_request(error.body_text()))?;
    if options.watch {
        let (changes, listed) = (node.changes(), Arc::clone(&node));
        return Ok(watch(changes, move || listed.pods(), move |entry| object::pod(entry, &*node)));
    }
    let pods = node.pods();
    let items = pods.iter().map(|entry| object::pod(entry, &*node));
    Ok(Json(encode::pod_list(items)).into_response())
}

impl Watched for PodEntry {
    fn identity(&self) -> &str {
        self.pod.uid.as_str()
    }

    fn version(&self) -> u64 {
        self.version
    }
}
