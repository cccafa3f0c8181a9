//! Watches: what there is, and then every change, as one JSON watch event a line.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;

/// One of what is watched, as it is now.
pub(super) trait Watched: Clone + Send + 'static {
    /// What it is told from others by, over time.
    fn identity(&self) -> &str;

    /// Another, greater one with every change.
    fn version(&self) -> u64;
}

/// What a watcher was told so far.
struct Watch<T, L, O> {
    changes: Receiver<u64>,
    list: L,
    object: O,
    known: BTreeMap<String, T>,
    /// To be told.
    queue: VecDeque<(&'static str, T)>,
}

/// Answers with an `ADDED` for everything `list` gives, and then, whenever `changes` does, with what is different.
///
/// A slow client costs no memory: what it has not been told is the difference between two values, and
/// changes it was too slow to see are one change.
pub(super) fn watch<T: Watched>(
    mut changes: Receiver<u64>,
    list: impl Fn() -> Vec<T> + Send + 'static,
    object: impl Fn(&T) -> Value + Send + 'static,
) -> Response {
    changes.mark_changed();
    let watch = Watch { changes, list, object, known: BTreeMap::new(), queue: VecDeque::new() };
    let events = stream::unfold(watch, |mut watch| async move {
        while watch.queue.is_empty() {
            watch.changes.changed().await.ok()?;
            let now: BTreeMap<_, _> =
                (watch.list)().into_iter().map(|one| (one.identity().to_owned(), one)).collect();
            watch.queue = difference(&watch.known, &now);
            watch.known = now;
        }
        let (kind, one) = watch.queue.pop_front()?;
        let mut line = json!({"type": kind, "object": (watch.object)(&one)}).to_string();
        line.push('\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), watch))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json;stream=watch"));
    response
}

/// What leads from one value to the other. What is gone goes before anything comes: a pod whose manifest changed is
/// another pod.
fn difference<T: Watched>(
    before: &BTreeMap<String, T>,
    now: &BTreeMap<String, T>,
) -> VecDeque<(&'static str, T)> {
    let gone = before.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(_, one)| ("DELETED", one));
    let mut here: Vec<_> = now
        .iter()
        .filter_map(|(key, one)| match before.get(key) {
            Some(known) if known.version() == one.version() => None,
            Some(_) => Some(("MODIFIED", one)),
            None => Some(("ADDED", one)),
        })
        .collect();
    here.sort_by_key(|(_, one)| one.version());
    gone.chain(here).map(|(kind, one)| (kind, one.clone())).collect()
}
