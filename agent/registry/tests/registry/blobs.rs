//! Blobs, and what happens to them on their way.

use std::time::Duration;

use coracle_registry::Limits;
use coracle_tests::registry::{Body, Content, Descriptor, Registry, Reply, Request};

use super::{ANYBODY, LIMITS, SOON, client, descriptor, name, read, with};

fn bytes() -> Vec<u8> {
    (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A registry of one blob, whose answers a script may replace.
fn registry(script: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> (Registry, Descriptor) {
    let mut content = Content::default();
    let blob = content.blob("", bytes());
    let registry = Registry::start(move |request| script(request, content.answer(request)));
    (registry, blob)
}

/// What comes of the blob.
async fn fetched(
    registry: &Registry,
    blob: &Descriptor,
    limits: Limits,
) -> Result<Vec<u8>, coracle_registry::Error> {
    let (client, name) = (with(None, limits), name(&format!("{}/app", registry.host())));
    let reading = async { read(client.blob(&name, &descriptor(blob), ANYBODY).await?).await };
    tokio::time::timeout(SOON, reading).await.expect("a blob comes, or fails, in time")
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    // More often than attempts without progress would be made.
    let (registry, blob) = registry(|request, reply| match request.number {
        0..6 => reply.sent(|bytes| Body::Truncated(bytes, 100_000)),
        _ => reply,
    });
    assert!(fetched(&registry, &blob, LIMITS).await.unwrap() == bytes());
    let ranges: Vec<_> = registry.asked().iter().map(|one| one.header("range").map(str::to_owned)).collect();
    let expected: Vec<_> = (0..7).map(|n| (n > 0).then(|| format!("bytes={}-", n * 100_000))).collect();
    assert_eq!(ranges, expected);
}

#[tokio::test]
async fn who_knows_no_ranges_sends_all_again() {
    let all = bytes();
    let (registry, blob) = registry(move |request, reply| match request.number {
        0 => reply.sent(|bytes| Body::Truncated(bytes, 777_777)),
        1 => Reply::ok("application/octet-stream", all.clone()).sent(|bytes| Body::Truncated(bytes, 500_000)),
        _ => Reply::ok("application/octet-stream", all.clone()).sent(Body::Chunked),
    });
    assert!(fetched(&registry, &blob, LIMITS).await.unwrap() == bytes());
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn a_range_that_begins_earlier_overlaps() {
    let all = bytes();
    let (registry, blob) = registry(move |request, reply| match request.number {
        0 => reply.sent(|bytes| Body::Truncated(bytes, 500_000)),
        _ => Reply::status("206 Partial Content")
            .with("Content-Range", &format!("bytes 400000-{}/{}", all.len() - 1, all.len()))
            .body(Body::Whole(all[400_000..].to_vec())),
    });
    assert!(fetched(&registry, &blob, LIMITS).await.unwrap() == bytes());
}

#[tokio::test]
async fn no_other_part_is_taken_for_the_one_that_is_missing() {
    for range in
        ["bytes 500001-999999/1000000", "bytes 500000-999998/1000000", "bytes 0-499999/500000", "nonsense"]
    {
        let (registry, blob) = registry(move |request, reply| match request.number {
            0 => reply.sent(|bytes| Body::Truncated(bytes, 500_000)),
            _ => Reply::status("206 Partial Content")
                .with("Content-Range", range)
                .body(Body::Whole(vec![0; 500_000])),
        });
        let error = fetched(&registry, &blob, LIMITS).await.unwrap_err().to_string();
        assert!(error.contains("the bytes from 500000 on with"), "{range}: {error}");
        assert!(error.contains(range), "{range}: {error}");
    }
}

#[tokio::test]
async fn one_that_is_always_cut_off_fails() {
    let (registry, blob) = registry(|_, reply| {
        reply.sent(|bytes| {
            let count = 1000.min(bytes.len());
            Body::Truncated(bytes, count)
        })
    });
    let error = fetched(&registry, &blob, LIMITS).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("blob {} of {}/app: {}: ", blob.digest, registry.host(), registry.host())),
        "{error}"
    );
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn a_blob_is_no_longer_than_it_should_be() {
    let (registry, blob) = registry(|_, reply| Reply { body: Body::Endless, ..reply });
    let error = fetched(&registry, &blob, LIMITS).await.unwrap_err().to_string();
    assert!(error.ends_with("sends more than the 1000000 bytes that the manifest tells of"), "{error}");
    assert_eq!(registry.asked().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn a_length_that_is_another_is_seen_before_a_byte_is_read() {
    for length in [999_999, 1_000_001] {
        let (registry, blob) = registry(move |_, reply| reply.body(Body::Stalled(vec![0; length], 0)));
        let error = fetched(&registry, &blob, LIMITS).await.unwrap_err().to_string();
        assert!(error.contains(&format!("has sent {length} bytes instead of the 1000000")), "{error}");
    }
}

#[tokio::test]
async fn a_blob_that_was_compressed_on_the_way_is_refused() {
    let (registry, blob) =
        registry(|_, reply| reply.body(Body::Whole(vec![0; 10])).with("Content-Encoding", "gzip"));
    let error = fetched(&registry, &blob, LIMITS).await.unwrap_err().to_string();
    assert!(error.contains("content encoding \"gzip\""), "{error}");
}

#[tokio::test]
async fn who_stops_in_the_midst_is_asked_again() {
    let (registry, blob) = registry(|request, reply| match request.number {
        0 => reply.sent(|bytes| Body::Stalled(bytes, 300_000)),
        _ => reply,
    });
    let limits = Limits { stall: Duration::from_secs(1), ..LIMITS };
    assert!(fetched(&registry, &blob, limits).await.unwrap() == bytes());
    let asked = registry.asked();
    let range = asked[1].header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    // A loaded machine may have stopped earlier.
    assert!(
        range.and_then(|from| from.parse().ok()).is_some_and(|from: u32| (1..=300_000).contains(&from)),
        "{range:?}"
    );
}

#[tokio::test]
async fn a_trickle_is_given_up() {
    let (registry, blob) =
        registry(|_, reply| reply.sent(|bytes| Body::Trickle(bytes, 10, Duration::from_millis(20))));
    let limits = Limits { least_rate: 1 << 20, rate_time: Duration::from_millis(200), ..LIMITS };
    let error = fetched(&registry, &blob, limits).await.unwrap_err().to_string();
    assert!(error.contains("and must send 1048576 a second"), "{error}");
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn giving_up_waiting_loses_nothing() {
    let (registry, blob) = registry(|request, reply| match request.number {
        0 => reply.sent(|bytes| Body::Truncated(bytes, 1000)),
        1 => Reply::status("503 Service Unavailable"),
        _ => reply.sent(|bytes| Body::Trickle(bytes, 100_000, Duration::from_millis(5))),
    });
    let limits = Limits { back_off: Duration::from_millis(200), longest_back_off: SOON, ..LIMITS };
    let (client, name) = (with(None, limits), name(&format!("{}/app", registry.host())));
    let mut blob = client.blob(&name, &descriptor(&blob), ANYBODY).await.unwrap();
    let mut all = Vec::new();
    let mut given_up = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(3), blob.next()).await {
            Ok(part) => match part.unwrap() {
                Some(part) => all.extend_from_slice(&part),
                None => break,
            },
            Err(_) => given_up += 1,
        }
    }
    assert!(all == bytes());
    assert!(given_up > 3, "{given_up}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_last_byte_has_brought_all() {
    // Chunks without the one that says that there is no more.
    let (registry, blob) = registry(|_, reply| match reply.body {
        Body::Whole(bytes) => {
            let mut chunked = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunked.extend(bytes);
            Reply::status("200 OK").body(Body::Raw(
                [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &chunked].concat(),
            ))
        }
        _ => reply,
    });
    assert!(fetched(&registry, &blob, LIMITS).await.unwrap() == bytes());
    assert_eq!(registry.asked().len(), 1);
}

#[tokio::test]
async fn a_consumer_may_be_slow() {
    let (registry, blob) = registry(|_, reply| reply);
    let second = Duration::from_secs(1);
    let limits = Limits { least_rate: 100 << 20, rate_time: second, stall: second, ..LIMITS };
    let (client, name) = (with(None, limits), name(&format!("{}/app", registry.host())));
    let mut blob = client.blob(&name, &descriptor(&blob), ANYBODY).await.unwrap();
    let mut count = blob.next().await.unwrap().unwrap().len();
    // What is slow here is the consumer: a wait that is the point of the test.
    tokio::time::sleep(second * 3 / 2).await;
    while let Some(part) = blob.next().await.unwrap() {
        count += part.len();
    }
    assert_eq!((count, registry.asked().len()), (1_000_000, 1));
}

#[tokio::test]
async fn what_was_pulled_of_is_used_again() {
    let (registry, blob) = registry(|_, reply| reply);
    let (client, name) = (client(), name(&format!("{}/app", registry.host())));
    for _ in 0..5 {
        read(client.blob(&name, &descriptor(&blob), ANYBODY).await.unwrap()).await.unwrap();
    }
    // One was tried with TLS.
    assert_eq!(registry.connections(), 2);
}

#[tokio::test]
async fn an_empty_blob_is_one() {
    let mut content = Content::default();
    let blob = content.blob("", Vec::new());
    let registry = Registry::with(content);
    assert_eq!(fetched(&registry, &blob, LIMITS).await.unwrap(), Vec::<u8>::new());
}
