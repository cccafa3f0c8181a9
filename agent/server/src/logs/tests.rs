use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flate2::write::GzEncoder;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A log and its writer.
struct Log {
    root: tempfile::TempDir,
    directory: PathBuf,
    file: File,
    line: u32,
}

impl Log {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("ns_pod_uid/c");
        fs::create_dir_all(&directory).unwrap();
        let file = append(&directory.join("0.log"));
        Self { root, directory, file, line: 0 }
    }

    fn request(&self) -> LogRequest {
        LogRequest {
            logs: self.root.path().to_owned(),
            pod: "ns_pod_uid".to_owned(),
            container: "c".to_owned(),
            attempt: 0,
            framed: None,
            stream: None,
            since: None,
            timestamps: false,
            tail: None,
            limit: None,
        }
    }

    /// Writes lines `0`, `1`, ... on from the last one, a nanosecond apart.
    fn write(&mut self, lines: u32) {
        for _ in 0..lines {
            writeln!(self.file, "2026-01-01T00:00:00.{:09}Z stdout F {}", self.line, self.line).unwrap();
            self.line += 1;
        }
    }

    fn rotate(&mut self, time: &str) {
        let current = self.directory.join("0.log");
        fs::rename(&current, self.directory.join(format!("0.log.{time}"))).unwrap();
        self.file = append(&current);
    }

    fn compress(&self, time: &str) {
        let plain = self.directory.join(format!("0.log.{time}"));
        let temporary = self.directory.join(format!("0.log.{time}.tmp"));
        let mut encoder = GzEncoder::new(File::create(&temporary).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(&plain).unwrap()).unwrap();
        encoder.finish().unwrap();
        fs::rename(&temporary, self.directory.join(format!("0.log.{time}.gz"))).unwrap();
        fs::remove_file(&plain).unwrap();
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|line| format!("{line}\n")).collect()
}

async fn ends(ended: oneshot::Receiver<()>) -> End {
    drop(ended.await);
    End::Container
}

async fn all(request: LogRequest) -> String {
    let mut receiver = read(request, None::<std::future::Ready<End>>).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = timeout(DEADLINE, receiver.recv()).await.unwrap() {
        text.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(text).unwrap()
}

/// Receives until the text is as expected; fails when it can no longer become so.
async fn expect(receiver: &mut mpsc::Receiver<io::Result<Bytes>>, text: &mut String, expected: &str) {
    while text != expected {
        assert!(expected.starts_with(text.as_str()), "{text:?} is not the beginning of {expected:?}");
        let piece = timeout(DEADLINE, receiver.recv()).await.expect("nothing came").expect("the end came");
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
}

#[tokio::test]
async fn rotated_and_compressed_files_are_part_of_the_log() {
    let mut log = Log::new();
    for time in ["20260101-000001", "20260101-000002", "20260101-000003"] {
        log.write(10);
        log.rotate(time);
    }
    log.write(10);
    log.compress("20260101-000001");
    log.compress("20260101-000002");
    assert_eq!(all(log.request()).await, lines(0..40));
    for tail in [0, 1, 9, 10, 11, 20, 25, 30, 31, 39, 40, 41, 1000] {
        let request = LogRequest { tail: Some(tail), ..log.request() };
        let from = 40u32.saturating_sub(u32::try_from(tail).unwrap());
        assert_eq!(all(request).await, lines(from..40), "the last {tail}");
    }
    let since = Some("2026-01-01T00:00:00.000000015Z".parse().unwrap());
    assert_eq!(all(LogRequest { since, ..log.request() }).await, lines(15..40));
    assert_eq!(all(LogRequest { limit: Some(5), ..log.request() }).await, "0\n1\n2");
    assert_eq!(all(LogRequest { limit: Some(0), ..log.request() }).await, "");
}

#[tokio::test]
async fn a_log_is_followed_until_the_container_ended() {
    let mut log = Log::new();
    log.write(3);
    let (end, ended) = oneshot::channel::<()>();
    let request = LogRequest { tail: Some(1), ..log.request() };
    let mut receiver = read(request, Some(ends(ended))).await.unwrap();
    let mut text = String::new();
    expect(&mut receiver, &mut text, "2\n").await;
    log.write(2);
    expect(&mut receiver, &mut text, "2\n3\n4\n").await;
    log.write(1);
    end.send(()).unwrap();
    expect(&mut receiver, &mut text, "2\n3\n4\n5\n").await;
    assert!(timeout(DEADLINE, receiver.recv()).await.unwrap().is_none(), "the stream ends");
}

#[tokio::test]
async fn no_line_is_lost_or_doubled_across_rotations() {
    let mut log = Log::new();
    let (end, ended) = oneshot::channel::<()>();
    let mut receiver = read(log.request(), Some(ends(ended))).await.unwrap();
    let mut text = String::new();
    let mut rotations = 0;
    for round in 0..60 {
        log.write(50);
        if round % 3 == 0 {
            // Sometimes more than one rotation while the reader is behind.
            log.rotate(&format!("20260101-{rotations:06}"));
            rotations += 1;
        }
        if round % 7 == 0 {
            let written = lines(0..log.line);
            expect(&mut receiver, &mut text, &written).await;
        }
        if round % 13 == 12 {
            log.compress(&format!("20260101-{:06}", rotations - 1));
        }
    }
    end.send(()).unwrap();
    let written = lines(0..log.line);
    expect(&mut receiver, &mut text, &written).await;
    assert!(timeout(DEADLINE, receiver.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_reading() {
    let log = Log::new();
    let (end, ended) = oneshot::channel::<()>();
    let receiver = read(log.request(), Some(ends(ended))).await.unwrap();
    drop(receiver);
    let mut end = end;
    timeout(DEADLINE, end.closed()).await.expect("the follower was dropped");
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_a_block() {
    let mut log = Log::new();
    log.write(200_000);
    let mut receiver = read(log.request(), None::<std::future::Ready<End>>).await.unwrap();
    assert_eq!(receiver.max_capacity(), 1);
    let mut length = 0;
    while let Some(piece) = timeout(DEADLINE, receiver.recv()).await.unwrap() {
        let piece = piece.unwrap();
        assert!(piece.len() <= BLOCK);
        length += piece.len();
    }
    assert_eq!(length, lines(0..200_000).len());
}

/// One frame's text, and where it says to go on.
fn unframed(frame: &[u8]) -> (String, FrameHead<Position>) {
    let end = frame.iter().position(|byte| *byte == b'\n').unwrap();
    let head: FrameHead<Position> = serde_json::from_slice(&frame[..end]).unwrap();
    let text = String::from_utf8(frame[end + 1..].to_vec()).unwrap();
    assert_eq!(text.len(), head.length);
    (text, head)
}

fn framed(request: &LogRequest, from: Option<Position>) -> LogRequest {
    LogRequest { framed: Some(Framed { uid: "uid".parse().unwrap(), from }), ..request.clone() }
}

/// Reads a log with a new reader for every piece of so many bytes, as if the agent had been killed after each.
fn resumed(request: &LogRequest, size: usize, mut between: impl FnMut(usize)) -> String {
    let (mut text, mut from) = (String::new(), None);
    for round in 0.. {
        between(round);
        let mut reader = Reader::open(&framed(request, from.take())).unwrap();
        reader.buffer = vec![0; size];
        let (empty, head) = unframed(&reader.read().unwrap().unwrap());
        assert!(empty.is_empty() && !head.gap);
        // Bytes of a head are read again, so that a piece must be longer than one.
        let Some(frame) = reader.read().unwrap() else { break };
        let (piece, head) = unframed(&frame);
        text.push_str(&piece);
        from = Some(head.position);
    }
    text
}

#[tokio::test]
async fn wherever_a_reader_ends_another_goes_on() {
    let mut log = Log::new();
    log.write(5);
    // Lines of both streams, each in several records, between one another.
    let parts = [("stdout", "P", "a"), ("stderr", "P", "b"), ("stdout", "P", "c"), ("stderr", "F", "d")];
    for (stream, tag, text) in parts.into_iter().chain([("stdout", "F", "e"), ("stderr", "F", "f")]) {
        writeln!(log.file, "2026-01-01T00:00:01.000000000Z {stream} {tag} {text}").unwrap();
    }
    log.rotate("20260101-000001");
    log.write(5);
    log.rotate("20260101-000002");
    writeln!(log.file, "no record\n2026-01-01T00:00:02.000000000Z stdout P no end").unwrap();
    let requests = [
        log.request(),
        LogRequest { timestamps: true, ..log.request() },
        LogRequest { stream: Some(Stream::Stderr), ..log.request() },
        LogRequest { since: Some("2026-01-01T00:00:00.000000003Z".parse().unwrap()), ..log.request() },
    ];
    for request in requests {
        let whole = all(request.clone()).await;
        for size in 50..120 {
            assert_eq!(resumed(&request, size, |_| {}), whole, "in pieces of {size}: {request:?}");
        }
        let tailed = LogRequest { tail: Some(4), ..request.clone() };
        assert_eq!(resumed(&tailed, 61, |_| {}), all(tailed).await, "of {request:?}");
    }
    // Written and rotated meanwhile.
    let mut more = Log::new();
    let request = more.request();
    let text = resumed(&request, 130, |round| {
        if round < 40 {
            more.write(3);
            if round % 5 == 0 {
                more.rotate(&format!("20260101-{round:06}"));
            }
        }
    });
    assert_eq!(text, lines(0..120));
}

#[tokio::test]
async fn a_reader_that_comes_too_late_says_so() {
    let mut log = Log::new();
    log.write(2);
    let mut reader = Reader::open(&framed(&log.request(), None)).unwrap();
    reader.read().unwrap();
    let (_, head) = unframed(&reader.read().unwrap().unwrap());
    log.rotate("20260101-000001");
    log.write(2);
    fs::remove_file(log.directory.join("0.log.20260101-000001")).unwrap();
    let mut reader = Reader::open(&framed(&log.request(), Some(head.position.clone()))).unwrap();
    let (_, first) = unframed(&reader.read().unwrap().unwrap());
    assert!(first.gap);
    let (text, second) = unframed(&reader.read().unwrap().unwrap());
    assert_eq!((text.as_str(), second.gap), ("2\n3\n", false));

    // Another file that has the number of the one that is gone is another file.
    let Some(mut place) = second.position.place else { panic!("a place") };
    place.file.born -= 1;
    let before = Position { place: Some(place), ..second.position };
    let mut reader = Reader::open(&framed(&log.request(), Some(before))).unwrap();
    assert!(unframed(&reader.read().unwrap().unwrap()).1.gap);
}

#[tokio::test]
async fn a_follower_learns_that_the_agent_ends() {
    let mut log = Log::new();
    log.write(1);
    let (end, ended) = oneshot::channel::<()>();
    let agent = async {
        drop(ended.await);
        End::Agent
    };
    let mut receiver = read(log.request(), Some(agent)).await.unwrap();
    let mut text = String::new();
    expect(&mut receiver, &mut text, "0\n").await;
    end.send(()).unwrap();
    let last = timeout(DEADLINE, receiver.recv()).await.unwrap().expect("not the end");
    assert!(last.is_err(), "what may go on does not end as if it were whole");
}

#[test]
fn no_file_is_skipped_that_is_put_aside_while_the_directory_is_read() {
    const ROTATIONS: u32 = 60;
    // Again and again: it is a matter of moments.
    for _ in 0..60 {
        let mut log = Log::new();
        let mut reader = Reader::open(&log.request()).unwrap();
        let writing = std::thread::spawn(move || {
            for rotation in 0..ROTATIONS {
                log.write(1);
                log.rotate(&format!("20260101-{rotation:06}"));
            }
            log
        });
        let mut text = String::new();
        let expected = lines(0..ROTATIONS);
        while text != expected {
            assert!(expected.starts_with(text.as_str()), "line {} is missing", text.lines().count());
            if let Some(piece) = reader.read().unwrap() {
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
        }
        writing.join().unwrap();
    }
}
