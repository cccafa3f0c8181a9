//! Following a log across restarts of the agent: every line comes once.

use std::time::Duration;

use anyhow::Context;
use coracle_server::client::{Bytes, Client, ClientError, LogOptions, LogPiece, LogPosition};
use futures_util::stream::LocalBoxStream;
use futures_util::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

/// How long an agent may be away, as for an upgrade, before following ends.
const AWAY: Duration = Duration::from_secs(60);
/// Between two attempts to reach it: the first, doubled up to the second.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A container's log, being followed.
struct Follower {
    client: Client,
    /// Namespace, pod and container.
    place: [String; 3],
    options: LogOptions,
    position: Option<LogPosition>,
    stream: Option<LocalBoxStream<'static, Result<LogPiece, ClientError>>>,
    away: Option<Away>,
}

/// The agent has not gone on with the log.
struct Away {
    since: Instant,
    delay: Duration,
    told: bool,
}

/// Follows the log of a container, given as namespace, pod and container, until the container has ended, also
/// where another agent has to go on.
///
/// # Errors
///
/// When the agent refuses, or cannot be reached at first; later as the stream's last item.
pub(super) async fn follow(
    client: &Client,
    place: [String; 3],
    mut options: LogOptions,
) -> Result<impl Stream<Item = anyhow::Result<Bytes>> + Unpin + use<>, ClientError> {
    // "The last five seconds" are those before now, whenever they are asked for again.
    if let Some(seconds) = options.since_seconds.take() {
        let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        options.since_time = Timestamp::now().checked_sub(ago).ok().map(|time| time.to_string());
    }
    let client = client.clone();
    let mut follower = Follower { client, place, options, position: None, stream: None, away: None };
    follower.stream = Some(follower.connect().await?);
    let texts = stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|text| (text, follower)))
    });
    Ok(Box::pin(texts))
}

// === impl Follower ===

impl Follower {
    async fn connect(&self) -> Result<LocalBoxStream<'static, Result<LogPiece, ClientError>>, ClientError> {
        let [namespace, pod, container] = &self.place;
        let position = self.position.as_ref();
        Ok(self.client.logs_from(namespace, pod, container, &self.options, position).await?.boxed_local())
    }

    /// The next text; `None` once there will be no other.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while self.options.limit_bytes != Some(0) {
            let lost = match &mut self.stream {
                Some(stream) => match stream.next().await {
                    None => return Ok(None),
                    Some(Ok(piece)) => match self.take(piece) {
                        Some(text) => return Ok(Some(text)),
                        None => continue,
                    },
                    Some(Err(lost)) => lost,
                },
                None => match self.connect().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    // The pod went meanwhile, or its log did.
                    Err(ClientError::Status(status)) if status.is_not_found() => return Ok(None),
                    Err(lost @ (ClientError::Unreachable { .. } | ClientError::Connection(_))) => lost,
                    Err(error) => return Err(error.into()),
                },
            };
            self.stream = None;
            self.wait(lost).await?;
        }
        Ok(None)
    }

    /// The text of a piece, if it has any.
    fn take(&mut self, piece: LogPiece) -> Option<Bytes> {
        if piece.gap {
            let [_, pod, container] = &self.place;
            eprintln!("coracle: lines of {pod}/{container} are missing here: their files were rotated away");
        }
        // One that only repeats where it was asked to go on is no progress.
        if self.position.as_ref() != Some(&piece.position) {
            self.away = None;
        }
        self.position = Some(piece.position);
        if let Some(limit) = &mut self.options.limit_bytes {
            *limit = limit.saturating_sub(piece.text.len() as u64);
        }
        Some(piece.text).filter(|text| !text.is_empty())
    }

    /// Waits before the next attempt; fails when the agent has been away for too long.
    async fn wait(&mut self, lost: ClientError) -> anyhow::Result<()> {
        let now = Instant::now();
        let away = self.away.get_or_insert(Away { since: now, delay: DELAYS.0, told: false });
        if now.duration_since(away.since) > AWAY {
            return Err(lost).with_context(|| {
                format!("the agent has not gone on with the log for {} seconds", AWAY.as_secs())
            });
        }
        if !away.told && away.delay == DELAYS.1 {
            eprintln!("coracle: the agent is away; waiting for it to come back");
            away.told = true;
        }
        sleep(away.delay).await;
        away.delay = (away.delay * 2).min(DELAYS.1);
        Ok(())
    }
}
