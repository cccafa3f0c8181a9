//! `/coracle/v1/events`, once or watched.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use coracle_model::Event;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::watch::{Watched, watch};
use crate::field_selector::{Field, FieldSelector};
use crate::{Status, object};

/// Of `metav1.ListOptions`, and the namespace, which Kubernetes has in the path.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    watch: bool,
    /// All of them, when it is not given.
    namespace: Option<String>,
    field_selector: String,
}

/// The fields of an event that can be selected by: those of the API server.
const FIELDS: [Field<Event>; 14] = [
    ("metadata.name", |event| &event.name),
    ("metadata.namespace", object::namespace),
    ("involvedObject.apiVersion", |_| object::API_VERSION),
    ("involvedObject.kind", |event| &event.involved_object.kind),
    ("involvedObject.namespace", |event| event.involved_object.namespace.as_deref().unwrap_or_default()),
    ("involvedObject.name", |event| &event.involved_object.name),
    ("involvedObject.uid", |event| &event.involved_object.uid),
    ("involvedObject.resourceVersion", |_| ""),
    ("involvedObject.fieldPath", |event| event.involved_object.field_path.as_deref().unwrap_or_default()),
    ("reason", |event| &event.reason),
    ("reportingComponent", |event| &event.component),
    ("reportingController", |event| &event.component),
    ("source", |event| &event.component),
    ("type", |event| event.kind.as_str()),
];

/// `GET /coracle/v1/events`: a `v1 EventList`, in order of `lastTimestamp`; with `watch=true` one JSON watch event
/// a line, without end, beginning with an `ADDED` for every event there is. An event that is no longer kept is
/// `DELETED` once something else happens: nothing wakes up for it.
pub(super) async fn list(
    State(node): State<Shared>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Status> {
    let Query(options) = options.map_err(|error| Status::bad_request(error.body_text()))?;
    let selector = FieldSelector::parse(&options.field_selector, &FIELDS).map_err(Status::bad_request)?;
    let (listed, namespace) = (Arc::clone(&node), options.namespace);
    let events = move || {
        let here = |event: &Event| namespace.as_ref().is_none_or(|it| it == object::namespace(event));
        let mut events = listed.events();
        events.retain(|event| here(event) && selector.matches(event));
        events
    };
    if options.watch {
        return Ok(watch(node.event_changes(), events, move |event| object::event(event, &*node)));
    }
    let mut events = events();
    events.sort_by_key(|event| event.last_timestamp);
    let items: Vec<_> = events.iter().map(|event| object::event(event, &*node)).collect();
    Ok(Json(json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": items})).into_response())
}

impl Watched for Arc<Event> {
    fn identity(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u64 {
        self.version
    }
}
