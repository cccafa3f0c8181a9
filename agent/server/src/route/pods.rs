//! `/pods`, once or watched, and a pod's events.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use coracle_manifest::encode;
use coracle_model::PodUid;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Shared, find};
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
        return Ok(watch(node));
    }
    let pods = node.pods();
    let items = pods.iter().map(|entry| object::pod(entry, &*node));
    Ok(Json(encode::pod_list(items)).into_response())
}

/// `GET /coracle/v1/events/{namespace}/{pod}`: a `v1 EventList`.
pub(super) async fn events(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
) -> Result<Json<Value>, Status> {
    let entry = find(&*node, &namespace, &pod, None)?;
    let events = node.events();
    let of_it = events.iter().filter(|event| event.involved_object.uid == entry.pod.uid.as_str());
    let items: Vec<_> = of_it.map(|event| object::event(event, &*node)).collect();
    Ok(Json(json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": items})))
}

/// What a watcher was told so far.
struct Watch {
    node: Shared,
    changes: watch::Receiver<u64>,
    known: BTreeMap<PodUid, PodEntry>,
    /// To be told.
    queue: VecDeque<(&'static str, PodEntry)>,
}

/// A slow client costs no memory: what it has not been told is the difference between two values, and
/// changes it was too slow to see are one change.
fn watch(node: Shared) -> Response {
    let mut changes = node.changes();
    changes.mark_changed();
    let watch = Watch { node, changes, known: BTreeMap::new(), queue: VecDeque::new() };
    let events = stream::unfold(watch, |mut watch| async move {
        while watch.queue.is_empty() {
            watch.changes.changed().await.ok()?;
            let now: BTreeMap<_, _> =
                watch.node.pods().into_iter().map(|entry| (entry.pod.uid.clone(), entry)).collect();
            watch.queue = difference(&watch.known, &now);
            watch.known = now;
        }
        let (kind, entry) = watch.queue.pop_front()?;
        let mut line = json!({"type": kind, "object": object::pod(&entry, &*watch.node)}).to_string();
        line.push('\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), watch))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json;stream=watch"));
    response
}

/// What leads from one value to the other. A pod whose manifest changed is another pod: the old one goes
/// before the new one comes.
fn difference(
    before: &BTreeMap<PodUid, PodEntry>,
    now: &BTreeMap<PodUid, PodEntry>,
) -> VecDeque<(&'static str, PodEntry)> {
    let gone = before.iter().filter(|(uid, _)| !now.contains_key(*uid)).map(|(_, entry)| ("DELETED", entry));
    let here = now.iter().filter_map(|(uid, entry)| match before.get(uid) {
        Some(known) if known.version == entry.version => None,
        Some(_) => Some(("MODIFIED", entry)),
        None => Some(("ADDED", entry)),
    });
    gone.chain(here).map(|(kind, entry)| (kind, entry.clone())).collect()
}
