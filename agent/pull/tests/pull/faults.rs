//! Registries that misbehave while an image's layers come: whatever they do, an error in bounded time, and nothing left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_tests::needs_root;
use coracle_tests::registry::{Body, Registry, Reply, Request, tar_of};

use super::{HASTY, LIMITS, Place, app, claiming, gzip, layer, noise, of_layers};

/// A registry of an image with two layers, the second of a megabyte, whose answers for that one a script replaces.
fn registry(script: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Registry {
    let large = tar_of(&[("large", &noise(1 << 20, 7))]);
    let (image, content) = of_layers(&[tar_of(&[("small", b"text")]), large]);
    let second = image.manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
    Registry::start(move |request| {
        let reply = content.answer(request);
        if request.path().ends_with(&second) { script(request, reply) } else { reply }
    })
}

#[tokio::test]
async fn a_layer_with_another_digest() {
    needs_root!();
    let registry = registry(|_, reply| {
        reply.sent(|mut bytes| {
            // A byte of the file, which is stored as it is.
            bytes[1 << 19] ^= 1;
            Body::Whole(bytes)
        })
    });
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains("has digest sha256:"), "{error}");
    assert!(error.contains(&format!("as sent by {}", registry.host())), "{error}");
}

#[tokio::test]
async fn a_layer_that_makes_no_sense_from_its_first_byte_on() {
    needs_root!();
    // What it is instead, and not what is wrong with that, is what helps.
    let registry = registry(|_, reply| {
        reply.sent(|mut bytes| {
            bytes.fill(b' ');
            Body::Whole(bytes)
        })
    });
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains("has digest sha256:"), "{error}");
    assert!(error.contains(&format!("as sent by {}", registry.host())), "{error}");
}

/// A place where `example.org` is served by the one, and by the other before; the image's name there, and the directory
/// that says so.
fn mirrored(server: &Registry, mirror: &Registry) -> (Place, String, tempfile::TempDir) {
    let hosts = tempfile::tempdir().unwrap();
    std::fs::create_dir(hosts.path().join("example.org")).unwrap();
    let text = format!("server = {:?}\n[host.{:?}]\n", server.url(), mirror.url());
    std::fs::write(hosts.path().join("example.org/hosts.toml"), text).unwrap();
    let place = Place::with(vec![hosts.path().to_owned()], LIMITS);
    (place, app(mirror).replace(&mirror.host(), "example.org"), hosts)
}

#[tokio::test]
async fn a_mirror_that_sends_layers_wrong_is_asked_for_them_last() {
    needs_root!();
    for garbage in [false, true] {
        let mirror = registry(move |_, reply| {
            reply.sent(|mut bytes| {
                if garbage {
                    bytes.fill(0);
                }
                bytes[1 << 19] ^= 1;
                Body::Whole(bytes)
            })
        });
        let server = registry(|_, reply| reply);
        let (place, name, _hosts) = mirrored(&server, &mirror);
        place.error_of(&name).await;
        place.pull(&name).await.unwrap();
        assert_eq!(server.asked().len(), 1, "{:?}", server.lines());
    }
}

#[tokio::test]
async fn a_layer_that_is_given_up_because_another_fails_is_nobodys_fault() {
    needs_root!();
    let (image, content) =
        of_layers(&[tar_of(&[("slow", &noise(1 << 20, 8))]), tar_of(&[("wrong", &noise(1000, 9))])]);
    let digest = |number: usize| image.manifest["layers"][number]["digest"].as_str().unwrap().to_owned();
    let (slow, wrong) = (digest(0), digest(1));
    let server = Registry::with(content.clone());
    let is_well = Arc::new(AtomicBool::new(false));
    let (well, stops) = (Arc::clone(&is_well), slow.clone());
    let mirror = Registry::start(move |request| {
        let reply = content.answer(request);
        if well.load(Ordering::SeqCst) {
            return reply;
        }
        if request.path().ends_with(&stops) {
            return reply.sent(|bytes| Body::Stalled(bytes, 500_000));
        }
        if request.path().ends_with(&wrong) {
            // So slowly that the other has begun to come.
            return reply.sent(|mut bytes| {
                bytes[600] ^= 1;
                Body::Trickle(bytes, 300, Duration::from_millis(100))
            });
        }
        reply
    });
    let (place, name, _hosts) = mirrored(&server, &mirror);
    let error = place.error_of(&name).await;
    assert!(error.contains("has digest sha256:"), "{error}");
    is_well.store(true, Ordering::SeqCst);
    place.pull(&name).await.unwrap();
    let lines = server.lines();
    assert!(!lines.iter().any(|line| line.ends_with(&slow)), "the mirror is still asked first: {lines:?}");
}

#[tokio::test]
async fn a_layer_that_is_another_than_the_configuration_says() {
    needs_root!();
    let (sent, claimed) = (layer("a", b"sent"), tar_of(&[("a", b"claimed")]));
    let registry = Registry::with(claiming(&[sent], &[claimed]));
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains("has digest sha256:") && error.contains("published like that"), "{error}");
    assert!(error.contains(&registry.host()), "{error}");
}

#[tokio::test]
async fn more_or_fewer_layers_than_the_configuration_says() {
    needs_root!();
    let archive = tar_of(&[("a", b"text")]);
    let layer = gzip(&archive);
    for layers in [vec![], vec![layer.clone(), layer]] {
        let registry = Registry::with(claiming(&layers, std::slice::from_ref(&archive)));
        let error = Place::new().error_of(&app(&registry)).await;
        assert!(error.contains("layers and its configuration 1"), "{error}");
    }
}

#[tokio::test]
async fn a_layer_that_always_breaks_off() {
    needs_root!();
    // Each time from where it was on, and never as much as would count as progress.
    let registry = registry(|_, reply| reply.sent(|bytes| Body::Truncated(bytes, 1000)));
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains(&registry.host()), "it names the host: {error}");
    assert!(registry.asked().len() < 30);
}

#[tokio::test]
async fn a_layer_that_never_ends() {
    needs_root!();
    let registry = registry(|_, reply| reply.body(Body::Endless));
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains(&registry.host()) && error.contains("sends more than the"), "{error}");
    // A megabyte, and what sockets hold.
    assert!(registry.sent() < 32 << 20, "it could send {} bytes", registry.sent());
}

#[tokio::test]
async fn a_layer_that_makes_no_sense_and_that_nobody_has_the_time_to_read() {
    needs_root!();
    let (mut image, mut content) = of_layers(&[tar_of(&[("small", b"text")])]);
    let layer = image.manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    // No more than there is room for.
    image.manifest["layers"][0]["size"] = serde_json::json!(1_u64 << 30);
    let descriptor = content.image(&image);
    content.tag("app", "latest", &descriptor);
    let registry = Registry::start(move |request| {
        let reply = content.answer(request);
        if request.path().ends_with(&layer) { reply.body(Body::Endless) } else { reply }
    });
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains(&format!("as sent by {}", registry.host())), "{error}");
    assert!(registry.sent() < 64 << 20, "it could send {} bytes", registry.sent());
}

#[tokio::test]
async fn a_layer_that_trickles_or_stops() {
    needs_root!();
    let trickle = |bytes| Body::Trickle(bytes, 100, Duration::from_millis(50));
    for body in [trickle as fn(Vec<u8>) -> Body, |bytes| Body::Stalled(bytes, 1000)] {
        let begin = Instant::now();
        let registry = registry(move |_, reply| reply.sent(body));
        let error = Place::with(Vec::new(), HASTY).error_of(&app(&registry)).await;
        assert!(error.contains(&registry.host()), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_layer_behind_a_loop_of_redirects() {
    needs_root!();
    let registry = registry(|request, _| Reply::redirect(&request.target));
    let error = Place::new().error_of(&app(&registry)).await;
    assert!(error.contains("redirect") || error.contains("sent on"), "{error}");
    assert!(registry.asked().len() < 100, "{}", registry.asked().len());
}

#[tokio::test]
async fn a_layer_that_is_not_there_or_not_for_everybody() {
    needs_root!();
    for (status, word) in [("404 Not Found", "404"), ("403 Forbidden", "403"), ("410 Gone", "410")] {
        let registry = registry(move |_, _| Reply::error(status, "DENIED", "not you"));
        let error = Place::new().error_of(&app(&registry)).await;
        assert!(error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn what_heals_is_pulled() {
    needs_root!();
    let registry = registry(|request, reply| match request.number % 4 {
        0 => Reply::error("500 Internal Server Error", "UNKNOWN", "no"),
        1 => Reply::error("429 Too Many Requests", "TOOMANYREQUESTS", "slowly").with("Retry-After", "1"),
        2 => reply.sent(|bytes| Body::Truncated(bytes, 300_000)),
        _ => reply,
    });
    let place = Place::new();
    let pulled = place.pull(&app(&registry)).await.unwrap();
    assert_eq!(place.store.verify_whole().unwrap(), Vec::<String>::new());
    assert_eq!(pulled.image.layers.len(), 2);
}
