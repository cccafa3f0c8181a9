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

async fn all(request: LogRequest) -> String {
    let mut receiver = read(request, None::<std::future::Ready<()>>).await.unwrap();
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
    let mut receiver = read(request, Some(async { drop(ended.await) })).await.unwrap();
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
    let mut receiver = read(log.request(), Some(async { drop(ended.await) })).await.unwrap();
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
    let receiver = read(log.request(), Some(async { drop(ended.await) })).await.unwrap();
    drop(receiver);
    let mut end = end;
    timeout(DEADLINE, end.closed()).await.expect("the follower was dropped");
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_a_block() {
    let mut log = Log::new();
    log.write(200_000);
    let mut receiver = read(log.request(), None::<std::future::Ready<()>>).await.unwrap();
    assert_eq!(receiver.max_capacity(), 1);
    let mut length = 0;
    while let Some(piece) = timeout(DEADLINE, receiver.recv()).await.unwrap() {
        let piece = piece.unwrap();
        assert!(piece.len() <= BLOCK);
        length += piece.len();
    }
    assert_eq!(length, lines(0..200_000).len());
}
