//! Moving one container's output into its log file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_linux::ReadinessFd;
use jiff::Timestamp;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size};
use tokio::io::Interest;
use tokio::task::JoinSet;

use super::cri::{self, Stream};
use super::cursor::{Chunk, Cursor};
use super::file::{LogError, LogFile, SharedLogLimits};
use super::peek;
use super::taps::Taps;

/// How many descriptors [`OutputPipes`] are. pause holds them before any other of a container.
pub(crate) const HELD_OUTPUT: usize = 4;

/// The agent's ends of a container's output, in the order in which pause holds them.
#[derive(Debug)]
pub(crate) struct OutputPipes {
    /// Standard output, or what a terminal showed.
    pub(crate) stdout: OwnedFd,
    /// Standard error.
    pub(crate) stderr: OwnedFd,
    /// What is being written to the log: [`super`] says why.
    pub(crate) journal_read: OwnedFd,
    /// The journal's other end.
    pub(crate) journal_write: OwnedFd,
}

/// The container's ends: its standard output and error.
#[derive(Debug)]
pub(crate) struct ContainerEnds {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Moves a container's output to its log until both streams ended.
pub(crate) struct Pump {
    writer: Writer,
    taps: Arc<Taps>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// What both streams share: the journal, the file and the cursor take one chunk at a time.
struct Writer {
    journal_read: OwnedFd,
    journal_write: OwnedFd,
    cursor: Cursor,
    log: LogFile,
    records: Vec<u8>,
    /// Bytes given up because the log could not be written.
    lost: u64,
    taps: Arc<Taps>,
    /// Of each stream, how much of what lies ready was looked at before: the beginning of a line.
    seen: [usize; 2],
}

/// Why a stream is no longer followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error("cannot {step} the container's output: {source}")]
    Pipe { step: &'static str, source: io::Error },
    #[error("cannot {step} the log cursor {}: {source}", path.display())]
    Cursor { step: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
}

// === impl OutputPipes ===

impl OutputPipes {
    /// Fresh pipes, and the container's ends of them.
    pub(crate) fn new() -> io::Result<(Self, ContainerEnds)> {
        let (journal_read, journal_write) = peek::pipe(PipeFlags::NONBLOCK)?;
        let room = fcntl_getpipe_size(&journal_write)?;
        let stream = || {
            let (read, write) = peek::pipe(PipeFlags::empty())?;
            // All that a stream can hold must fit into the journal.
            if fcntl_getpipe_size(&write)? > room {
                fcntl_setpipe_size(&write, room)?;
            }
            // The flag belongs to this end alone: the container's stays blocking, as programs expect.
            rustix::io::ioctl_fionbio(&read, true)?;
            io::Result::Ok((read, write))
        };
        let (stdout, container_stdout) = stream()?;
        let (stderr, container_stderr) = stream()?;
        Ok((
            Self { stdout, stderr, journal_read, journal_write },
            ContainerEnds { stdout: container_stdout, stderr: container_stderr },
        ))
    }

    /// The descriptors that pause is to hold.
    pub(crate) fn held(&self) -> [BorrowedFd<'_>; HELD_OUTPUT] {
        [self.stdout.as_fd(), self.stderr.as_fd(), self.journal_read.as_fd(), self.journal_write.as_fd()]
    }

    /// The pipes again, taken from the front of what pause held.
    pub(crate) fn from_held(held: &mut Vec<OwnedFd>) -> Option<Self> {
        let rest = held.split_off(held.len().min(HELD_OUTPUT));
        let pipes = <[OwnedFd; HELD_OUTPUT]>::try_from(std::mem::replace(held, rest)).ok()?;
        let [stdout, stderr, journal_read, journal_write] = pipes;
        Some(Self { stdout, stderr, journal_read, journal_write })
    }
}

// === impl Pump ===

impl Pump {
    /// A pump from `pipes` to the log at `log`, its cursor at `cursor`; finishes what an agent before this
    /// one had begun.
    pub(crate) fn recover(
        pipes: OutputPipes,
        cursor: &Path,
        log: PathBuf,
        limits: SharedLogLimits,
        taps: Arc<Taps>,
    ) -> Result<Self, PumpError> {
        let error = |step| move |source| PumpError::Cursor { step, path: cursor.to_owned(), source };
        let mut writer = Writer {
            journal_read: pipes.journal_read,
            journal_write: pipes.journal_write,
            cursor: Cursor::open(cursor).map_err(error("open"))?,
            log: LogFile::open(log, limits)?,
            records: Vec::new(),
            lost: 0,
            taps: Arc::clone(&taps),
            seen: [0; 2],
        };
        let noted = writer.cursor.read().map_err(error("read"))?;
        let source = |stream| match stream {
            Stream::Stdout => pipes.stdout.as_fd(),
            Stream::Stderr => pipes.stderr.as_fd(),
        };
        writer.finish(noted, |chunk| source(chunk.stream))?;
        Ok(Self { writer, taps, stdout: pipes.stdout, stderr: pipes.stderr })
    }

    /// Follows both streams until their writers are gone.
    pub(crate) async fn run(self) -> Result<(), PumpError> {
        let writer = Arc::new(Mutex::new(self.writer));
        let mut streams = JoinSet::new();
        for (pipe, stream) in [(self.stdout, Stream::Stdout), (self.stderr, Stream::Stderr)] {
            let (writer, taps) = (Arc::clone(&writer), Arc::clone(&self.taps));
            streams.spawn(async move {
                let followed = follow(pipe, stream, &writer).await;
                taps.end(stream);
                followed
            });
        }
        let mut result = Ok(());
        while let Some(ended) = streams.join_next().await {
            match ended {
                Ok(outcome) => result = result.and(outcome),
                Err(error) => {
                    let source = io::Error::other(error);
                    result = result.and(Err(PumpError::Pipe { step: "follow", source }));
                }
            }
        }
        result
    }
}

/// Follows one stream. A part of a line stays in the pipe until the rest is there: readiness is taken
/// edge-triggered, so it wakes nobody meanwhile.
async fn follow(pipe: OwnedFd, stream: Stream, writer: &Mutex<Writer>) -> Result<(), PumpError> {
    let failed = |step| move |source| PumpError::Pipe { step, source };
    let pipe = ReadinessFd::new(pipe, Interest::READABLE).map_err(failed("watch"))?;
    loop {
        let mut guard = pipe.readable().await.map_err(failed("wait for"))?;
        let ended = guard.ready().is_read_closed();
        // Cleared before the look, not after: what arrives in between makes a new event.
        guard.clear_ready();
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        while writer.take(pipe.get_ref().as_fd(), stream, ended)? {}
        if ended {
            return Ok(());
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Moves what is ready from `pipe` to the log. Says whether there was anything to move.
    fn take(&mut self, pipe: BorrowedFd<'_>, stream: Stream, ended: bool) -> Result<bool, PumpError> {
        let failed = |step| move |source| PumpError::Pipe { step, source };
        let now = Timestamp::now();
        self.rotate(now);
        self.records.clear();
        let (records, taps) = (&mut self.records, &self.taps);
        let seen = &mut self.seen[usize::from(stream.index())];
        let taken = peek::peek(pipe, |ready| {
            // Those who watch see the beginning of a line as well: it may be a prompt.
            taps.show(stream, ready.get(*seen..).unwrap_or_default());
            let taken = cri::complete(ready, ended);
            cri::format(&ready[..taken], stream, now, records);
            *seen = ready.len() - taken;
            taken
        })
        .map_err(failed("look at"))?;
        if taken == 0 {
            return Ok(false);
        }
        let chunk = Chunk {
            stream,
            taken: taken as u64,
            before: self.log.length(),
            appended: self.records.len() as u64,
        };
        self.note(&chunk)?;
        peek::transfer(pipe, self.journal_write.as_fd(), taken).map_err(failed("take"))?;
        self.append(taken);
        peek::discard(self.journal_read.as_fd(), taken).map_err(failed("drain"))?;
        Ok(true)
    }

    /// Completes the chunk another agent noted last, if it was cut off in the middle.
    fn finish<'a>(
        &mut self,
        noted: Option<Chunk>,
        source: impl Fn(&Chunk) -> BorrowedFd<'a>,
    ) -> Result<(), PumpError> {
        let failed = |step| move |source| PumpError::Pipe { step, source };
        let waiting = peek::ready(self.journal_read.as_fd()).map_err(failed("look at"))?;
        let Some(chunk) = noted.filter(|_| waiting > 0) else { return Ok(()) };
        if self.log.length() < chunk.before.saturating_add(chunk.appended) {
            // Not, or not wholly, written. The move into the journal may have been cut off as well.
            let taken = usize::try_from(chunk.taken).unwrap_or(waiting);
            let missing = taken.saturating_sub(waiting);
            peek::transfer(source(&chunk), self.journal_write.as_fd(), missing).map_err(failed("take"))?;
            self.log.cut(chunk.before.min(self.log.length()))?;
            self.records.clear();
            let records = &mut self.records;
            let now = Timestamp::now();
            peek::peek(self.journal_read.as_fd(), |bytes| cri::format(bytes, chunk.stream, now, records))
                .map_err(failed("look at"))?;
            let again = Chunk { appended: self.records.len() as u64, before: self.log.length(), ..chunk };
            self.note(&again)?;
            self.append(taken);
        }
        let left = peek::ready(self.journal_read.as_fd()).map_err(failed("look at"))?;
        peek::discard(self.journal_read.as_fd(), left).map_err(failed("drain"))
    }

    fn note(&self, chunk: &Chunk) -> Result<(), PumpError> {
        self.cursor.write(chunk).map_err(|source| PumpError::Pipe { step: "note the position of", source })
    }

    /// Appends the prepared records. A log that cannot be written (the disk is full) costs its lines,
    /// said once when it begins and once when it is over: a container must not stop for its log.
    fn append(&mut self, taken: usize) {
        match self.log.append(&self.records) {
            Ok(()) if self.lost > 0 => {
                tracing::warn!(
                    bytes = self.lost,
                    "the container log can be written again; output in between is lost"
                );
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    tracing::error!(%error, "container output is being lost; free space in the log directory");
                }
                self.lost += taken as u64;
            }
        }
    }

    /// Rotates when due. A failed rotation lets the file grow and is tried again with the next chunk.
    fn rotate(&mut self, now: Timestamp) {
        if let Err(error) = self.log.rotate_if_full(now) {
            tracing::warn!(%error, "log rotation failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::file::LogLimits;
    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
        pipes: OutputPipes,
        ends: ContainerEnds,
    }

    impl Scene {
        fn new() -> Self {
            let (pipes, ends) = OutputPipes::new().unwrap();
            Self { dir: tempfile::tempdir().unwrap(), pipes, ends }
        }

        /// What the next agent gets from pause.
        fn pump(&self) -> Pump {
            let held = self.pipes.held().map(|fd| fd.try_clone_to_owned().unwrap());
            let pipes = OutputPipes::from_held(&mut held.into()).unwrap();
            let log = self.dir.path().join("0.log");
            let (cursor, taps) = (self.dir.path().join("cursor"), Arc::default());
            Pump::recover(pipes, &cursor, log, LogLimits::default().into(), taps).unwrap()
        }

        fn text(&self) -> Vec<String> {
            let log = fs::read_to_string(self.dir.path().join("0.log")).unwrap();
            log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
        }

        fn write(&self, text: &[u8]) {
            fs::File::from(self.ends.stdout.try_clone().unwrap()).write_all(text).unwrap();
        }
    }

    #[test]
    fn every_point_at_which_an_agent_may_be_killed_leaves_each_line_once() {
        // The steps of `Writer::take`, cut off after each of them.
        for killed_after in 0..=4 {
            let scene = Scene::new();
            scene.write(b"one\n");
            let mut first = scene.pump();
            assert!(first.writer.take(scene.pipes.stdout.as_fd(), Stream::Stdout, false).unwrap());
            scene.write(b"two\nthree\n");
            let before = first.writer.log.length();
            let mut records = Vec::new();
            cri::format(b"two\nthree\n", Stream::Stdout, Timestamp::now(), &mut records);
            let chunk = Chunk { stream: Stream::Stdout, taken: 10, before, appended: records.len() as u64 };
            let (stdout, journal) = (scene.pipes.stdout.as_fd(), scene.pipes.journal_write.as_fd());
            if killed_after >= 1 {
                first.writer.cursor.write(&chunk).unwrap();
            }
            match killed_after {
                2 => peek::transfer(stdout, journal, 6).unwrap(),
                3.. => peek::transfer(stdout, journal, 10).unwrap(),
                _ => {}
            }
            match killed_after {
                3 => first.writer.log.append(&records[..20]).unwrap(),
                4 => {
                    first.writer.log.append(&records).unwrap();
                    peek::discard(scene.pipes.journal_read.as_fd(), 3).unwrap();
                }
                _ => {}
            }
            drop(first);
            let mut second = scene.pump();
            while second.writer.take(stdout, Stream::Stdout, false).unwrap() {}
            assert_eq!(
                scene.text(),
                ["stdout F one", "stdout F two", "stdout F three"],
                "killed after step {killed_after}"
            );
            assert_eq!(peek::ready(scene.pipes.journal_read.as_fd()).unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_pump_ends_with_its_writers_and_keeps_the_unfinished_line() {
        let scene = Scene::new();
        scene.write(b"whole\npart");
        fs::File::from(scene.ends.stderr.try_clone().unwrap()).write_all(b"oops\n").unwrap();
        let pump = scene.pump();
        let Scene { dir, pipes, ends } = scene;
        drop(ends);
        pump.run().await.unwrap();
        let log = fs::read_to_string(dir.path().join("0.log")).unwrap();
        let mut lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["stderr F oops", "stdout F whole", "stdout P part"]);
        drop(pipes);
    }

    #[tokio::test]
    async fn who_is_attached_sees_the_beginning_of_a_line_at_once_and_nothing_twice() {
        use tokio::io::AsyncReadExt;
        let scene = Scene::new();
        let mut pump = scene.pump();
        let mut output = pump.taps.attach().stdout;
        let mut buffer = [0; 64];
        for (written, taken) in [(&b"$ "[..], false), (b"ls\na b", true), (b" c\n", true), (b"$ ", false)] {
            scene.write(written);
            let mut any = false;
            while pump.writer.take(scene.pipes.stdout.as_fd(), Stream::Stdout, false).unwrap() {
                any = true;
            }
            assert_eq!(any, taken);
            let count = output.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], written);
        }
        // What lay in the pipe when another came is not new.
        let mut late = pump.taps.attach().stdout;
        scene.write(b"exit\n");
        assert!(pump.writer.take(scene.pipes.stdout.as_fd(), Stream::Stdout, false).unwrap());
        let count = late.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"exit\n");
        assert_eq!(scene.text(), ["stdout F $ ls", "stdout F a b c", "stdout F $ exit"]);
    }

    #[tokio::test]
    async fn more_than_a_pipe_holds_arrives_in_order() {
        let scene = Scene::new();
        let running = tokio::spawn(scene.pump().run());
        let Scene { dir, pipes: _pipes, ends } = scene;
        let lines = 50_000;
        let ContainerEnds { stdout, stderr } = ends;
        drop(stderr);
        tokio::task::spawn_blocking(move || {
            let mut stdout = io::BufWriter::new(fs::File::from(stdout));
            for n in 0..lines {
                writeln!(stdout, "line {n}").unwrap();
            }
        })
        .await
        .unwrap();
        running.await.unwrap().unwrap();
        let log = fs::read_to_string(dir.path().join("0.log")).unwrap();
        let mut expected = 0;
        for line in log.lines() {
            assert!(line.ends_with(&format!(" stdout F line {expected}")), "{line}");
            expected += 1;
        }
        assert_eq!(expected, lines);
    }
}
