//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::io;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use coracle_model::{ContainerState, ContainerStatus, PodUid};
use futures_util::stream;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{Shared, find};
use crate::logs::{End, Framed, LogRequest, Position, Stream, read};
use crate::{PodEntry, Status};

/// `v1 PodLogOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    follow: bool,
    previous: bool,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    timestamps: bool,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
    /// The run with this restart count. Not known to Kubernetes: a client that follows every run cannot
    /// be told by `previous` which one it gets.
    attempt: Option<u32>,
    /// The text comes in frames, each with a position to go on from. Not known to Kubernetes either, as is
    /// `position`: where to go on. Then `previous`, `attempt` and `tailLines` count for nothing.
    positions: bool,
    position: Option<String>,
}

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    options: Result<Query<Options>, QueryRejection>,
) -> Result<Response, Status> {
    let Query(options) = options.map_err(|error| Status::bad_request(error.body_text()))?;
    let entry = find(&*node, &namespace, &pod, None)?;
    let key = &entry.pod.key;
    let from = options.position.as_deref().map(position).transpose()?;
    if from.as_ref().is_some_and(|from| from.uid != entry.pod.uid) {
        return Err(Status::pod_not_found(&pod));
    }
    let attempt = match from.as_ref().map(|from| from.attempt).or(options.attempt) {
        Some(attempt) if entry.pod.container(&container).is_some() => attempt,
        _ => attempt(&entry, &container, options.previous)?,
    };
    let framed = options.positions || from.is_some();
    let request = LogRequest {
        logs: node.log_dir().to_owned(),
        pod: format!("{}_{}_{}", key.namespace, key.name, entry.pod.uid),
        container: container.clone(),
        attempt,
        framed: framed.then(|| Framed { uid: entry.pod.uid.clone(), from }),
        stream: stream_of(options.stream.as_deref())?,
        since: since(&options, Timestamp::now())?,
        timestamps: options.timestamps,
        tail: at_least("tailLines", options.tail_lines, 0)?,
        limit: at_least("limitBytes", options.limit_bytes, 1)?,
    };
    let uid = entry.pod.uid.clone();
    let name = container.clone();
    // A container that ended before gives its log and no more, as with the kubelet.
    let ended = options.follow.then_some(async move {
        let mut changes = node.changes();
        changes.mark_changed();
        loop {
            // The change that cannot come any more.
            if changes.changed().await.is_err() {
                return End::Agent;
            }
            if ended(&node.pods(), &uid, &name, attempt) {
                return End::Container;
            }
        }
    });
    let pieces = read(request, ended).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Status::failure(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("the log of container {container:?} in pod {pod:?} was not found: it was removed"),
        ),
        _ => Status::internal(format!(
            "cannot open the log of container {container:?} in pod {pod:?}: {error}"
        )),
    })?;
    let body = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn position(text: &str) -> Result<Position, Status> {
    serde_json::from_str(text).map_err(|_| invalid("position", text, "must be one that this node gave"))
}

/// Which run of the container the log is wanted of, by its restart count.
fn attempt(entry: &PodEntry, container: &str, previous: bool) -> Result<u32, Status> {
    let pod = entry.pod.key.name.as_str();
    if entry.pod.container(container).is_none() {
        return Err(Status::bad_request(format!("container {container} is not valid for pod {pod}")));
    }
    let waiting = |reason: &str| {
        Status::bad_request(format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"))
    };
    let Some(status) = status_of(entry, container) else { return Err(waiting("ContainerCreating")) };
    if previous {
        return previous_attempt(status).ok_or_else(|| {
            Status::bad_request(format!(
                "previous terminated container {container:?} in pod {pod:?} not found"
            ))
        });
    }
    match &status.state {
        ContainerState::Running(_) | ContainerState::Terminated(_) => Ok(status.restart_count),
        // Between two runs, the one that ended last.
        ContainerState::Waiting(_) if status.last_state.is_some() => {
            Ok(previous_attempt(status).unwrap_or(status.restart_count))
        }
        ContainerState::Waiting(waiting_for) => Err(waiting(match waiting_for.reason.as_str() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            reason => reason,
        })),
    }
}

/// The run that `lastState` tells of.
fn previous_attempt(status: &ContainerStatus) -> Option<u32> {
    let last = status.last_state.as_ref()?;
    // While it waits to be started again, the last run still has the count; once the next is made, that
    // has it.
    if last.container_id == status.container_id {
        Some(status.restart_count)
    } else {
        status.restart_count.checked_sub(1)
    }
}

fn status_of<'a>(entry: &'a PodEntry, container: &str) -> Option<&'a ContainerStatus> {
    entry.status.all_containers().find(|status| status.name == container)
}

/// Whether nothing more will be written to the log of this run.
fn ended(pods: &[PodEntry], uid: &PodUid, container: &str, attempt: u32) -> bool {
    let Some(entry) = pods.iter().find(|entry| entry.pod.uid == *uid) else { return true };
    status_of(entry, container).is_none_or(|status| {
        status.restart_count != attempt || !matches!(status.state, ContainerState::Running(_))
    })
}

fn stream_of(name: Option<&str>) -> Result<Option<Stream>, Status> {
    match name {
        None | Some("" | "All") => Ok(None),
        Some("Stdout") => Ok(Some(Stream::Stdout)),
        Some("Stderr") => Ok(Some(Stream::Stderr)),
        Some(other) => Err(invalid("stream", other, "supported values: \"All\", \"Stderr\", \"Stdout\"")),
    }
}

fn since(options: &Options, now: Timestamp) -> Result<Option<Timestamp>, Status> {
    match (options.since_seconds, options.since_time.as_deref().filter(|time| !time.is_empty())) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Status::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"))
        }
        // Longer ago than time can say is since ever.
        (Some(seconds @ 1..), None) => Ok(now.checked_sub(SignedDuration::from_secs(seconds)).ok()),
        (Some(seconds), None) => Err(invalid("sinceSeconds", seconds, "must be greater than 0")),
        (None, Some(time)) => match time.parse() {
            Ok(time) => Ok(Some(time)),
            Err(_) => Err(invalid("sinceTime", time, "must be a time as RFC 3339 writes it")),
        },
    }
}

fn at_least(field: &str, value: Option<i64>, least: i64) -> Result<Option<u64>, Status> {
    match value {
        None => Ok(None),
        Some(number) if number >= least => Ok(u64::try_from(number).ok()),
        Some(number) => Err(invalid(field, number, &format!("must be greater than or equal to {least}"))),
    }
}

fn invalid(field: &str, value: impl ToString, message: &str) -> Status {
    Status::failure(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Invalid",
        format!("PodLogOptions is invalid: {field}: Invalid value: {:?}: {message}", value.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let now = Timestamp::UNIX_EPOCH;
        let message = |result: Result<Option<Timestamp>, Status>| result.unwrap_err().message;
        let seconds = |seconds| Options { since_seconds: Some(seconds), ..Options::default() };
        assert!(
            message(since(&seconds(0), now)).contains("sinceSeconds: Invalid value: \"0\": must be greater")
        );
        assert_eq!(since(&seconds(i64::MAX), now).unwrap(), None);
        assert_eq!(since(&seconds(5), now).unwrap().unwrap().as_second(), -5);
        let both = Options { since_time: Some("2020-01-01T00:00:00Z".to_owned()), ..seconds(1) };
        assert!(message(since(&both, now)).contains("at most one of"));
        let time = Options { since_time: Some("yesterday".to_owned()), ..Options::default() };
        assert!(message(since(&time, now)).contains("sinceTime: Invalid value: \"yesterday\""));
        assert!(at_least("tailLines", Some(-1), 0).unwrap_err().message.contains("tailLines"));
        assert_eq!(at_least("tailLines", Some(0), 0).unwrap(), Some(0));
        assert!(at_least("limitBytes", Some(0), 1).is_err());
        assert!(stream_of(Some("stdin")).is_err());
        assert_eq!(stream_of(Some("Stderr")).unwrap(), Some(Stream::Stderr));
    }
}
