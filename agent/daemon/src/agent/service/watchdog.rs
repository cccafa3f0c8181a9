//! The service manager's watchdog: it hears from an agent that works, and not from one that only exists.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::Notifier;

/// Tells that the agent is alive, twice within the time that the service manager gives it, for as long as it is: what
/// waits for exits and clients came round, and so did a task of the runtime. Meant to be part of the agent's first
/// future, so that one that hangs tells nothing. Without a watchdog it does nothing.
///
/// # Errors
/// When it cannot begin.
pub(crate) async fn watch(watchdog: Option<Duration>, notifier: Notifier) -> anyhow::Result<Infallible> {
    let Some(limit) = watchdog.filter(|_| notifier.is_heard()) else { return pending().await };
    let mut turn = Turn::new().context("cannot watch the runtime for the service manager")?;
    loop {
        tokio::time::sleep(limit / 2).await;
        match turn.come_round().await {
            Ok(()) => notifier.alive(),
            Err(error) => tracing::error!(%error, "the runtime does not do what it is asked"),
        }
    }
}

/// What comes round only where the runtime works: its readiness, by which exits, logs and clients are learned of, and its
/// tasks.
struct Turn {
    here: UnixStream,
    there: UnixStream,
}

impl Turn {
    fn new() -> io::Result<Self> {
        let (here, there) = UnixStream::pair()?;
        Ok(Self { here, there })
    }

    async fn come_round(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.there.write_all(&byte).await?;
        self.here.read_exact(&mut byte).await?;
        tokio::spawn(async {}).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn manager() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (directory, manager, Notifier::new(Some(path.into_os_string())))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_agent_that_works_is_heard_again_and_again() {
        let (_directory, manager, notifier) = manager();
        let watching = tokio::spawn(watch(Some(LIMIT), notifier));
        let heard = tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 64];
            (0..3)
                .map(|_| manager.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(
            heard.await.unwrap(),
            [b"WATCHDOG=1".to_vec(), b"WATCHDOG=1".to_vec(), b"WATCHDOG=1".to_vec()]
        );
        watching.abort();
    }

    #[test]
    fn an_agent_whose_tasks_hang_is_not_heard_until_they_do_no_longer() {
        let (_directory, manager, notifier) = manager();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (hanging, hangs) = mpsc::channel();
        let releases = [(); 2].map(|()| {
            let (release, released) = mpsc::channel::<()>();
            let hanging = hanging.clone();
            runtime.spawn(async move {
                hanging.send(()).unwrap();
                // Until the sender is gone.
                let _ = released.recv();
            });
            release
        });
        for _ in 0..2 {
            hangs.recv().unwrap();
        }
        // Like the agent's first future it is polled by none of the workers.
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let agent = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = watch(Some(LIMIT), notifier) => {}
                    _ = ended => {}
                }
            });
        });
        manager.set_read_timeout(Some(LIMIT * 10)).unwrap();
        assert_eq!(manager.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(releases);
        manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(manager.recv(&mut [0; 64]).unwrap(), b"WATCHDOG=1".len());
        drop(end);
        agent.join().unwrap();
    }

    #[tokio::test]
    async fn without_a_watchdog_nothing_is_told() {
        let (_directory, manager, notifier) = manager();
        manager.set_nonblocking(true).unwrap();
        assert!(timeout(LIMIT * 3, watch(None, notifier)).await.is_err());
        assert_eq!(manager.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
