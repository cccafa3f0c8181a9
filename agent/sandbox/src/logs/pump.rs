//! Moving one container's output into its log file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_linux::ReadinessFd;
use jiff::Timestamp;
use tokio::io::Interest;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cri::{self, Stream};
use super::cursor::{Chunk, Cursor};
use super::file::{LogError, LogFile};
use super::peek;
use super::pipes::OutputPipes;
use super::taps::Taps;

/// How long output waits that could not be looked at or moved, at first and at most; it doubles in between. Less than what
/// is waited for the end of it when the container has ended.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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
    /// Bytes given up because the log could not be written, from when that was said until it can be written again.
    lost: Option<u64>,
    /// It was said that the cursor could not be written, and has not been written since.
    unnoted: bool,
    /// It was said that the log could not be rotated, and that has not succeeded since.
    unrotated: bool,
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

// === impl Pump ===

impl Pump {
    /// A pump from `pipes` to a log, its cursor at `cursor`; finishes what an agent before this one had begun.
    ///
    /// With an error it is one all the same: that of a container which runs must go on, or the container waits for
    /// ever once its pipe is full. It loses what is written until the log can be.
    pub(crate) fn recover(
        pipes: OutputPipes,
        cursor: PathBuf,
        log: LogFile,
        taps: Arc<Taps>,
    ) -> (Self, Result<(), PumpError>) {
        let mut writer = Writer {
            journal_read: pipes.journal_read,
            journal_write: pipes.journal_write,
            cursor: Cursor::new(cursor),
            log,
            records: Vec::new(),
            lost: None,
            unnoted: false,
            unrotated: false,
            taps: Arc::clone(&taps),
            seen: [0; 2],
        };
        let source = |stream| match stream {
            Stream::Stdout => pipes.stdout.as_fd(),
            Stream::Stderr => pipes.stderr.as_fd(),
        };
        let recovered = writer.recover(|chunk| source(chunk.stream));
        if recovered.is_err() {
            writer.give_up_journal();
        }
        (Self { writer, taps, stdout: pipes.stdout, stderr: pipes.stderr }, recovered)
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
///
/// What cannot be looked at or moved (there are no descriptors, or no memory) is tried again after a while: given
/// up, it would stop the container once the pipe is full. Once the stream has ended it stops nobody.
async fn follow(original: OwnedFd, stream: Stream, writer: &Mutex<Writer>) -> Result<(), PumpError> {
    let failed = |step| move |source| PumpError::Pipe { step, source };
    let mut wait = FIRST_WAIT;
    let again = |error: &PumpError, wait: &mut Duration| {
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, seconds) = (writer.log.path().display(), wait.as_secs());
        tracing::warn!(%log, %error, "a container's output waits, and is looked at again in {seconds} s");
        let now = *wait;
        *wait = (now * 2).min(LONGEST_WAIT);
        sleep(now)
    };
    let pipe = loop {
        // The original stays here meanwhile: one that cannot be watched now is not given up.
        let watched = original.try_clone().and_then(|pipe| ReadinessFd::new(pipe, Interest::READABLE));
        match watched.map_err(failed("watch")) {
            Ok(watched) => break watched,
            Err(error) => again(&error, &mut wait).await,
        }
    };
    drop(original);
    loop {
        let mut guard = pipe.readable().await.map_err(failed("wait for"))?;
        let ended = guard.ready().is_read_closed();
        // Cleared before the look, not after: what arrives in between makes a new event.
        guard.clear_ready();
        wait = FIRST_WAIT;
        while let Err(error) = take_all(writer, pipe.get_ref().as_fd(), stream, ended) {
            if ended {
                return Err(error);
            }
            again(&error, &mut wait).await;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Moves all that is ready from `pipe` to the log. An error leaves an empty journal, if it can be emptied.
fn take_all(
    writer: &Mutex<Writer>,
    pipe: BorrowedFd<'_>,
    stream: Stream,
    ended: bool,
) -> Result<(), PumpError> {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match writer.take(pipe, stream, ended) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                writer.give_up_journal();
                return Err(error);
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Moves what is ready from `pipe` to the log, or away where that cannot be written. Says whether there was
    /// anything to move.
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
        if !self.open_log() {
            peek::discard(pipe, taken).map_err(failed("take"))?;
            self.lose(taken);
            return Ok(true);
        }
        let chunk = Chunk {
            stream,
            taken: taken as u64,
            before: self.log.length(),
            appended: self.records.len() as u64,
        };
        if self.note(&chunk) {
            peek::transfer(pipe, self.journal_write.as_fd(), taken).map_err(failed("take"))?;
            self.append(taken);
            peek::discard(self.journal_read.as_fd(), taken).map_err(failed("drain"))?;
        } else {
            // A journal without a note is of no use to the next agent. Past it, that one finds these lines in the
            // pipe, if this one is killed here, and writes them twice: better than not at all.
            self.append(taken);
            peek::discard(pipe, taken).map_err(failed("take"))?;
        }
        Ok(true)
    }

    /// Opens the log, and completes the chunk another agent noted last.
    fn recover<'a>(&mut self, source: impl Fn(&Chunk) -> BorrowedFd<'a>) -> Result<(), PumpError> {
        self.log.ensure_open(Instant::now())?;
        let noted = self.cursor.read();
        let noted = noted.map_err(|source| PumpError::Cursor {
            step: "read",
            path: self.cursor.path().to_owned(),
            source,
        })?;
        self.finish(noted, source)
    }

    /// Completes the chunk another agent noted last, if it was cut off in the middle.
    fn finish<'a>(
        &mut self,
        noted: Option<Chunk>,
        source: impl Fn(&Chunk) -> BorrowedFd<'a>,
    ) -> Result<(), PumpError> {
        let failed = |step| move |source| PumpError::Pipe { step, source };
        let waiting = peek::ready(self.journal_read.as_fd()).map_err(failed("look at"))?;
        let Some(chunk) = noted.filter(|_| waiting > 0) else {
            self.give_up_journal();
            return Ok(());
        };
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
            // Without it the old note holds: its records have the same length.
            self.note(&again);
            self.append(taken);
        }
        let left = peek::ready(self.journal_read.as_fd()).map_err(failed("look at"))?;
        peek::discard(self.journal_read.as_fd(), left).map_err(failed("drain"))
    }

    /// Notes what is about to be done. Says whether that succeeded.
    fn note(&mut self, chunk: &Chunk) -> bool {
        let noted = self.cursor.write(chunk);
        if let Err(error) = &noted
            && !self.unnoted
        {
            let cursor = self.cursor.path().display();
            tracing::warn!(%cursor, %error, "a line may be logged twice if the agent is killed");
        }
        self.unnoted = noted.is_err();
        noted.is_ok()
    }

    /// Gives up what lies in the journal, if anything does: nobody knows any more what became of it.
    fn give_up_journal(&mut self) {
        let waiting = peek::ready(self.journal_read.as_fd()).unwrap_or(0);
        if waiting > 0 && peek::discard(self.journal_read.as_fd(), waiting).is_ok() {
            let log = self.log.path().display();
            tracing::warn!(%log, bytes = waiting, "output of a container may be missing from its log");
        }
    }

    /// Whether the log is open. One that could not be opened, or that somebody has removed, is opened again.
    fn open_log(&mut self) -> bool {
        match self.log.ensure_open(Instant::now()) {
            Ok(open) => open,
            Err(error) => {
                self.say_lost(&error);
                false
            }
        }
    }

    /// Says that output is being lost from now on, once.
    fn say_lost(&mut self, error: &LogError) {
        if self.lost.is_none() {
            tracing::error!(%error, "container output is being lost until the log can be written");
            self.lost = Some(0);
        }
    }

    fn lose(&mut self, taken: usize) {
        let lost = self.lost.get_or_insert(0);
        *lost = lost.saturating_add(taken as u64);
    }

    /// Appends the prepared records. A log that cannot be written (the disk is full) costs its lines,
    /// said once when it begins and once when it is over: a container must not stop for its log.
    fn append(&mut self, taken: usize) {
        match self.log.append(&self.records) {
            Ok(()) => {
                if let Some(bytes) = self.lost.take() {
                    tracing::warn!(
                        bytes,
                        "the container log can be written again; output in between is lost"
                    );
                }
            }
            Err(error) => {
                self.say_lost(&error);
                self.lose(taken);
            }
        }
    }

    /// Rotates when due. A failed rotation lets the file grow and is tried again with the next chunk.
    fn rotate(&mut self, now: Timestamp) {
        let rotated = self.log.rotate_if_full(now);
        if let Err(error) = &rotated
            && !self.unrotated
        {
            tracing::warn!(%error, "log rotation failed");
        }
        self.unrotated = rotated.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::file::LogLimits;
    use super::super::pipes::ContainerEnds;
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
            let (pump, recovered) = self.recovered();
            recovered.unwrap();
            pump
        }

        fn recovered(&self) -> (Pump, Result<(), PumpError>) {
            let held = self.pipes.held().map(|fd| fd.try_clone_to_owned().unwrap());
            let pipes = OutputPipes::from_held(&mut held.into()).unwrap();
            let path = self.dir.path().join("0.log");
            let log = LogFile::new(self.dir.path(), path, LogLimits::default().into());
            Pump::recover(pipes, self.dir.path().join("cursor"), log, Arc::default())
        }

        /// Writes a line and has it taken.
        fn line(&self, pump: &mut Pump, line: &str) {
            self.write(format!("{line}\n").as_bytes());
            assert!(pump.writer.take(self.pipes.stdout.as_fd(), Stream::Stdout, false).unwrap());
            assert_eq!(peek::ready(self.pipes.stdout.as_fd()).unwrap(), 0);
            assert_eq!(peek::ready(self.pipes.journal_read.as_fd()).unwrap(), 0);
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

    #[test]
    fn a_log_that_cannot_be_opened_costs_its_lines_and_stops_no_container() {
        let scene = Scene::new();
        let log = scene.dir.path().join("0.log");
        fs::create_dir(&log).unwrap();
        // What an agent before this one has left in the journal has no file to be completed in.
        scene.write(b"left\n");
        peek::transfer(scene.pipes.stdout.as_fd(), scene.pipes.journal_write.as_fd(), 5).unwrap();
        let (mut pump, recovered) = scene.recovered();
        assert!(matches!(recovered, Err(PumpError::Log(_))), "{recovered:?}");
        scene.line(&mut pump, "lost");
        scene.line(&mut pump, "lost as well");
        assert_eq!(pump.writer.lost, Some(18));
        fs::remove_dir(&log).unwrap();
        // Until it is tried again.
        std::thread::sleep(Duration::from_millis(500));
        scene.line(&mut pump, "written");
        assert_eq!((pump.writer.lost, scene.text()), (None, vec!["stdout F written".to_owned()]));
    }

    #[test]
    fn a_log_that_was_removed_is_written_anew() {
        let scene = Scene::new();
        let mut pump = scene.pump();
        scene.line(&mut pump, "one");
        fs::remove_file(scene.dir.path().join("0.log")).unwrap();
        scene.line(&mut pump, "two");
        assert_eq!(scene.text(), ["stdout F two"]);
    }

    #[test]
    fn a_cursor_that_cannot_be_written_costs_no_line() {
        let scene = Scene::new();
        let cursor = scene.dir.path().join("cursor");
        fs::create_dir(&cursor).unwrap();
        let (mut pump, recovered) = scene.recovered();
        assert!(matches!(recovered, Err(PumpError::Cursor { .. })), "{recovered:?}");
        scene.line(&mut pump, "one");
        fs::remove_dir(&cursor).unwrap();
        scene.line(&mut pump, "two");
        assert!(cursor.is_file());
        assert_eq!((pump.writer.lost, pump.writer.unnoted), (None, false));
        assert_eq!(scene.text(), ["stdout F one", "stdout F two"]);
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
