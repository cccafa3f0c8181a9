//! Registries that misbehave.

use std::time::{Duration, Instant, SystemTime};

use coracle_registry::{Error, Limits};
use coracle_tests::registry::{Body, Content, Image, Registry, Reply, Request};
use coracle_tests::wait::wait_until;
use serde_json::{Value, json};

use super::{ANYBODY, LIMITS, SOON, client, name, pull, with};

/// A registry of the image `app`, whose answers a script may replace.
fn registry(script: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Registry {
    let mut content = Content::default();
    let image = content.image(&Image::small("one"));
    content.tag("app", "latest", &image);
    Registry::start(move |request| script(request, content.answer(request)))
}

/// What comes of the image with a registry.
async fn error_of(registry: &Registry) -> Error {
    let (client, image) = (client(), format!("{}/app", registry.host()));
    let pulled = tokio::time::timeout(SOON * 2, pull(&client, &image, ANYBODY)).await;
    let error = pulled.expect("a pull ends").unwrap_err();
    assert!(error.to_string().len() < 1500, "{error}");
    error
}

async fn text_of(registry: &Registry) -> String {
    error_of(registry).await.to_string()
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let other = Image::small("two").manifest.to_string();
    let registry = registry(move |request, reply| match request.is_manifest() {
        true => Reply { body: Body::Whole(other.clone().into_bytes()), ..reply },
        false => reply,
    });
    let error = text_of(&registry).await;
    assert!(error.contains("has sent what has another digest than was asked for: sha256:"), "{error}");
    let by_digest = format!("{}/app@sha256:{}", registry.host(), "0a".repeat(32));
    let error = pull(&client(), &by_digest, ANYBODY).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(registry.asked().len(), 2, "neither is asked for again");
}

#[tokio::test]
async fn a_configuration_with_another_digest_is_refused() {
    let registry = registry(|request, reply| match request.is_blob() {
        true => reply.sent(|bytes| Body::Whole(bytes.iter().map(|_| b' ').collect())),
        false => reply,
    });
    assert!(text_of(&registry).await.contains("another digest than was asked for"));
}

#[tokio::test]
async fn documents_are_bounded() {
    for body in [Body::Endless, Body::Chunked(vec![b' '; 5 << 20]), Body::Whole(vec![b' '; 5 << 20])] {
        let registry = registry(move |_, reply| Reply { body: body.clone(), ..reply });
        let error = text_of(&registry).await;
        assert!(error.contains("has answered with more than 4194304 bytes"), "{error}");
        assert_eq!(registry.asked().len(), 1);
    }
    let mut image = Image::small("one");
    image.manifest["config"]["size"] = json!(5 << 20);
    let mut content = Content::default();
    let descriptor = content.image(&image);
    content.tag("app", "latest", &descriptor);
    let error = text_of(&Registry::with(content)).await;
    assert!(error.contains("a document of 5242880 bytes is too large"), "{error}");
}

#[tokio::test]
async fn a_document_that_is_cut_off_is_asked_for_again() {
    let registry = registry(|request, reply| match request.number {
        0 => reply.sent(|bytes| Body::Truncated(bytes, 100)),
        1 => reply.sent(|_| Body::Closed),
        _ => reply,
    });
    pull(&client(), &format!("{}/app", registry.host()), ANYBODY).await.unwrap();
}

#[tokio::test]
async fn manifests_that_are_none() {
    let image = Image::small("one");
    let with = |name: &str, value: Value| {
        let mut manifest = image.manifest.clone();
        manifest[name] = value;
        manifest
    };
    let layer = image.manifest["layers"][0].clone();
    let mut escaping = layer.clone();
    escaping["digest"] = json!("sha256:../../x");
    for (manifest, expected) in [
        (with("manifests", json!([])), "both `manifests` and `layers`"),
        (with("layers", json!(vec![layer; 10_000])), "10000 layers, of which overlayfs takes 500"),
        (with("layers", json!([escaping])), "\"sha256:../../x\" is not a digest"),
        (with("schemaVersion", json!(1)), "schema 1"),
    ] {
        let mut content = Content::default();
        let descriptor = content.manifest(&manifest);
        content.tag("app", "latest", &descriptor);
        let registry = Registry::with(content);
        let error = text_of(&registry).await;
        assert!(error.contains(expected), "{error}");
        assert!(
            error.starts_with(&format!("manifest {0}/app:latest: {0}: its manifest", registry.host())),
            "{error}"
        );
        assert_eq!(registry.asked().len(), 1);
    }
}

#[tokio::test]
async fn other_types_are_refused() {
    let page = Reply::ok("text/html; charset=utf-8", "<html>Please log in</html>");
    let registry = Registry::start(move |_| page.clone());
    let error = text_of(&registry).await;
    assert!(error.contains("a web page (text/html)") && error.contains("login page"), "{error}");

    let manifest = Image::small("one").manifest.to_string();
    let registry = Registry::start(move |_| {
        Reply::ok("application/vnd.docker.distribution.manifest.list.v2+json", manifest.clone())
    });
    let error = text_of(&registry).await;
    assert!(error.contains("Content-Type says application/vnd.docker.distribution.manifest.list"), "{error}");
}

#[tokio::test]
async fn who_fails_once_is_asked_again() {
    for status in
        ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "408 Request Timeout"]
    {
        let registry = registry(move |request, reply| match request.number % 2 {
            0 => Reply::status(status),
            _ => reply,
        });
        pull(&client(), &format!("{}/app", registry.host()), ANYBODY).await.unwrap();
    }
}

#[tokio::test]
async fn who_fails_always_is_named() {
    let registry = registry(|_, _| Reply::error("503 Service Unavailable", "UNAVAILABLE", "disk\\nfull"));
    let error = text_of(&registry).await;
    let expected = format!(
        "manifest {0}/app:latest: {0}: has answered with status 503 Service Unavailable, UNAVAILABLE: disk full",
        registry.host()
    );
    assert_eq!(error, expected);
    assert_eq!(registry.asked().len(), 3);
}

#[tokio::test]
async fn who_says_no_is_not_asked_again() {
    let all = [
        ("401 Unauthorized", "unauthorized (401 Unauthorized, X: why): ", true, false),
        ("403 Forbidden", "denied (403 Forbidden, X: why): ", true, false),
        ("404 Not Found", "not found (404 Not Found, X: why): check the name", false, true),
        ("400 Bad Request", "status 400 Bad Request, X: why", false, false),
    ];
    for (status, expected, unauthorized, not_found) in all {
        let registry = registry(move |_, _| Reply::error(status, "X", "why"));
        let error = error_of(&registry).await;
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!((error.is_unauthorized(), error.is_not_found()), (unauthorized, not_found));
        assert_eq!(registry.asked().len(), 1);
    }
}

#[tokio::test]
async fn who_asks_for_time_is_given_it() {
    let registry = registry(|request, reply| match request.number {
        0 => Reply::status("429 Too Many Requests").with("Retry-After", "1"),
        _ => reply,
    });
    let began = Instant::now();
    pull(&client(), &format!("{}/app", registry.host()), ANYBODY).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_asks_for_much_time_is_left_alone() {
    for after in ["3600".to_owned(), date_in(3600)] {
        let registry = registry(move |_, _| {
            Reply::error("429 Too Many Requests", "TOOMANYREQUESTS", "rate limit").with("Retry-After", &after)
        });
        let error = error_of(&registry).await;
        assert!(error.is_too_many_requests());
        let wait = error.retry_at().unwrap().duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((3500..=3600).contains(&wait), "{wait}");
        let text = error.to_string();
        assert!(
            text.contains(
                "too many requests (429 Too Many Requests, TOOMANYREQUESTS: rate limit): try again after "
            ),
            "{text}"
        );
        assert_eq!(registry.asked().len(), 1);
    }
}

#[tokio::test]
async fn who_is_being_mended_is_not_asked_before_its_time() {
    let registry = registry(|_, _| Reply::status("503 Service Unavailable").with("Retry-After", "120"));
    let error = text_of(&registry).await;
    assert!(error.ends_with("503 Service Unavailable, and asks not to be asked again for 120 s"), "{error}");
    assert_eq!(registry.asked().len(), 1);
}

fn date_in(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds))
}

#[tokio::test]
async fn too_many_requests_without_a_time_are_made_again() {
    let registry = registry(|request, reply| match request.number {
        0 | 1 => Reply::status("429 Too Many Requests"),
        _ => reply,
    });
    pull(&client(), &format!("{}/app", registry.host()), ANYBODY).await.unwrap();
}

#[tokio::test]
async fn redirects_have_an_end() {
    let registry = registry(|request, _| Reply::redirect(&format!("/v2/app/manifests/{}", request.number)));
    let error = text_of(&registry).await;
    assert!(error.contains("is redirected") && error.contains("10 requests in a row"), "{error}");
    assert_eq!(registry.asked().len(), 10);
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    for body in [Body::Silence, Body::Stalled(vec![b' '; 100], 10)] {
        let registry = registry(move |_, reply| Reply { body: body.clone(), ..reply });
        let short = Duration::from_millis(150);
        let client = with(None, Limits { answer: short, document: short, ..LIMITS });
        let began = Instant::now();
        let error = client
            .manifest(&name(&format!("{}/app", registry.host())), ANYBODY)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("has not answered") && error.contains("within 0.15 s"), "{error}");
        assert!(began.elapsed() < SOON);
        // It may read the last of them after the client has gone.
        wait_until("it to have been asked three times", SOON, || registry.asked().len() == 3);
    }
}

#[tokio::test]
async fn who_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client().manifest(&name(&format!("{address}/app")), ANYBODY).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "manifest {address}/app:latest: {address}: cannot connect to {address}: Connection refused (os error 111)"
        )
    );
    let error = client().manifest(&name("nobody.invalid/app"), ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("cannot look up nobody.invalid"), "{error}");
}

#[tokio::test]
async fn who_knows_no_head_does_not_say_what_a_tag_is() {
    let registry = registry(|_, _| Reply::status("405 Method Not Allowed"));
    let digest = client().digest(&name(&format!("{}/app", registry.host())), ANYBODY).await.unwrap();
    assert_eq!(digest, None);
}
