//! `/pods`, once or watched, and a pod's events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Shared, find};
use crate::{Node, PodEntry, Pods, Status, object};

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
    let pods = node.pods().borrow().clone();
    let items = pods.values().map(|entry| object::pod(entry, node.name())).collect();
    Ok(Json(object::list("PodList", items)).into_response())
}

/// `GET /coracle/v1/events/{namespace}/{pod}`: a `v1 EventList`.
pub(super) async fn events(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
) -> Result<Json<Value>, Status> {
    let (_, entry) = find(&*node, &namespace, &pod)?;
    let events = node.events(&entry.pod.uid);
    let items = events.iter().map(|event| object::event(event, &entry, node.name())).collect();
    Ok(Json(object::list("EventList", items)))
}

/// What a watcher was told so far.
struct Watch {
    node: Shared,
    changes: watch::Receiver<Pods>,
    known: Pods,
    /// Told, not yet sent.
    queue: VecDeque<Bytes>,
}

/// A slow client costs no memory: what it has not been told is the difference between two values, and
/// changes it was too slow to see are one change.
fn watch(node: Shared) -> Response {
    let mut changes = node.pods();
    changes.mark_changed();
    let watch = Watch { node, changes, known: Pods::default(), queue: VecDeque::new() };
    let events = stream::unfold(watch, |mut watch| async move {
        while watch.queue.is_empty() {
            watch.changes.changed().await.ok()?;
            let now = watch.changes.borrow_and_update().clone();
            watch.queue = difference(&watch.known, &now, &*watch.node);
            watch.known = now;
        }
        let event = watch.queue.pop_front()?;
        Some((Ok::<_, Infallible>(event), watch))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json;stream=watch"));
    response
}

/// The watch events that lead from one value to the other.
fn difference(before: &Pods, now: &Pods, node: &dyn Node) -> VecDeque<Bytes> {
    let line = |kind: &str, entry: &PodEntry| {
        let mut line = json!({"type": kind, "object": object::pod(entry, node.name())}).to_string();
        line.push('\n');
        Bytes::from(line)
    };
    // A pod whose manifest changed is another pod: the old one goes before the new one comes.
    let same = |a: &PodEntry, b: &PodEntry| a.pod.uid == b.pod.uid;
    let gone = before
        .iter()
        .filter(|(key, old)| now.get(*key).is_none_or(|new| !same(old, new)))
        .map(|(_, old)| line("DELETED", old));
    let here = now.iter().filter_map(|(key, new)| match before.get(key) {
        Some(old) if Arc::ptr_eq(old, new) || old == new => None,
        Some(old) if same(old, new) => Some(line("MODIFIED", new)),
        _ => Some(line("ADDED", new)),
    });
    gone.chain(here).collect()
}
