//! Mirrors, and what hosts.toml says of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_tests::registry::{Body, Content, Image, Registry, Reply};
use tempfile::TempDir;

use super::{ANYBODY, LIMITS, name, pull, with};

/// A directory of hosts, with this for one registry.
fn configured(registry: &str, hosts: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    configure(directory.path(), registry, hosts);
    directory
}

fn configure(directory: &Path, registry: &str, hosts: &str) {
    fs::create_dir_all(directory.join(registry)).unwrap();
    fs::write(directory.join(registry).join("hosts.toml"), hosts).unwrap();
}

fn content() -> Content {
    let mut content = Content::default();
    let image = content.image(&Image::small("one"));
    content.tag("library/nginx", "latest", &image);
    content
}

fn lines_with<'a>(lines: &'a [String], part: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.contains(part)).collect()
}

#[tokio::test]
async fn a_mirror_stands_in_for_docker_hub() {
    let mirror = Registry::with(content());
    let directory =
        configured("docker.io", &format!("server = \"http://127.0.0.1:1\"\n[host.\"{}\"]", mirror.url()));
    let client = with(Some(directory.path()), LIMITS);
    pull(&client, "nginx", ANYBODY).await.unwrap();
    let lines = mirror.lines();
    assert_eq!(lines[0], "GET /v2/library/nginx/manifests/latest?ns=docker.io");
    assert_eq!(lines_with(&lines, "?ns=docker.io").len(), 3, "{lines:?}");
    assert_eq!(mirror.connections(), 1, "it was not tried with TLS");
}

#[tokio::test]
async fn hosts_are_asked_in_order_until_one_has_it() {
    let empty = Registry::with(Content::default());
    let broken = Registry::start(|_| Reply::status("500 Internal Server Error"));
    let lying = Registry::start(|request| match request.is_manifest() {
        true => Reply::ok("text/html", "<html>"),
        false => Reply::ok("x", "y"),
    });
    let server = Registry::with(content());
    let hosts = format!(
        "server = \"{}\"\n[host.\"{}\"]\n[host.\"{}\"]\n[host.\"{}\"]\n",
        server.url(),
        lying.url(),
        broken.url(),
        empty.url()
    );
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
    for registry in [&empty, &broken, &lying, &server] {
        assert_eq!(lines_with(&registry.lines(), "manifests").len(), 1, "each is asked once");
    }

    let error = pull(&client, "example.org/other", ANYBODY).await.unwrap_err();
    let (lying, broken, empty, server) = (lying.host(), broken.host(), empty.host(), server.host());
    let text = error.to_string();
    let expected = format!(
        "manifest example.org/other:latest: {lying}: has answered with a web page (text/html), not with a manifest: it is no \
         registry, or a login page or a proxy answers in its place; {broken}: has answered with status 500 Internal Server \
         Error; {empty}: not found (404 Not Found, MANIFEST_UNKNOWN: manifest unknown): check the name and the tag; some \
         registries say this also of what one may not see; {server}: not found"
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(!error.is_not_found() && !error.is_unauthorized());
}

#[tokio::test]
async fn only_who_may_do_better_is_asked_again() {
    let empty = Registry::with(Content::default());
    let broken = Registry::start(|_| Reply::status("500 Internal Server Error"));
    let hosts = format!("server = \"{}\"\n[host.\"{}\"]\n", broken.url(), empty.url());
    let directory = configured("example.org", &hosts);
    pull(&with(Some(directory.path()), LIMITS), "example.org/app", ANYBODY).await.unwrap_err();
    assert_eq!((empty.asked().len(), broken.asked().len()), (1, 3));
}

#[tokio::test]
async fn a_host_that_is_also_the_server_is_asked_once() {
    let empty = Registry::with(Content::default());
    let both = format!("server = \"{0}\"\n[host.\"{0}/\"]\n", empty.url());
    let directory = configured("example.org", &both);
    let client = with(Some(directory.path()), LIMITS);
    let error = pull(&client, "example.org/app", ANYBODY).await.unwrap_err().to_string();
    assert_eq!(empty.asked().len(), 1);
    assert_eq!(error.matches(&empty.host()).count(), 1, "{error}");

    // As the server it may what as a host it may not.
    let server = Registry::with(content());
    let hosts = format!("{}capabilities = [\"pull\"]\n", both.replace(&empty.url(), &server.url()));
    configure(directory.path(), "example.org", &hosts);
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
}

#[tokio::test]
async fn capabilities_are_heeded() {
    let (mirror, server) = (Registry::with(content()), Registry::with(content()));
    let hosts =
        format!("server = \"{}\"\n[host.\"{}\"]\ncapabilities = [\"pull\"]\n", server.url(), mirror.url());
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    let image = name("example.org/library/nginx");
    client.digest(&image, ANYBODY).await.unwrap();
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
    assert_eq!(lines_with(&mirror.lines(), "manifests").len(), 0, "a tag");
    assert_eq!(lines_with(&mirror.lines(), "blobs").len(), 2);
    assert_eq!(lines_with(&server.lines(), "blobs").len(), 0);
    let digest = client.digest(&image, ANYBODY).await.unwrap().unwrap();
    pull(&client, &format!("example.org/library/nginx@{digest}"), ANYBODY).await.unwrap();
    assert_eq!(lines_with(&mirror.lines(), "manifests").len(), 1, "a digest");
}

#[tokio::test]
async fn who_knows_tags_need_not_have_manifests() {
    let (resolving, pulling) = (Registry::with(content()), Registry::with(content()));
    let hosts = format!(
        "server = \"{}\"\ncapabilities = [\"pull\"]\n[host.\"{}\"]\ncapabilities = [\"resolve\"]\n",
        pulling.url(),
        resolving.url()
    );
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
    assert_eq!(resolving.lines(), ["HEAD /v2/library/nginx/manifests/latest?ns=example.org"]);
    assert!(pulling.lines()[0].starts_with("GET /v2/library/nginx/manifests/sha256:"));

    configure(directory.path(), "example.org", "server = \"http://127.0.0.1:1\"\ncapabilities = [\"push\"]");
    let error = pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap_err().to_string();
    assert!(
        error.contains("no host of example.org may be asked (resolve is in no one's capabilities)"),
        "{error}"
    );
}

#[tokio::test]
async fn headers_are_for_their_host_alone() {
    let server = Registry::with(content());
    let (to, all) = (server.url(), content());
    let mirror = Registry::start(move |request| match request.is_blob() {
        true => Reply::redirect(&format!("{to}{}", request.path())),
        false => all.answer(request),
    });
    let hosts = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"{0}\"]\n[host.\"{0}\".header]\nX-Token = \"secret\"\nX-Two = [\"a\", \"b\"]\n",
        mirror.url()
    );
    let directory = configured("example.org", &hosts);
    pull(&with(Some(directory.path()), LIMITS), "example.org/library/nginx", ANYBODY).await.unwrap();
    assert!(mirror.asked().iter().all(|one| one.header("x-token") == Some("secret")));
    assert_eq!(mirror.asked()[0].head.matches("x-two: ").count(), 2);
    assert!(
        server.asked().iter().all(|one| one.header("x-token").is_none() && one.header("x-two").is_none())
    );
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn paths_are_those_of_the_file() {
    let all = content();
    let mirror = Registry::start(move |request| {
        let mut request = request.clone();
        request.target = request.target.replace("/api/own/", "/v2/");
        all.answer(&request)
    });
    let hosts = format!("[host.\"{}/api/own\"]\noverride_path = true", mirror.url());
    let directory = configured("_default", &hosts);
    pull(&with(Some(directory.path()), LIMITS), "example.org/library/nginx", ANYBODY).await.unwrap();
    assert_eq!(mirror.lines()[0], "GET /api/own/library/nginx/manifests/latest?ns=example.org");
}

#[tokio::test]
async fn who_does_not_connect_in_its_time_is_passed_over() {
    // Accepts, and never says a word of TLS.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let server = Registry::with(content());
    let hosts = format!(
        "server = \"{}\"\n[host.\"https://{}\"]\ndial_timeout = \"150ms\"\n",
        server.url(),
        silent.local_addr().unwrap()
    );
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
    let error = pull(&client, "example.org/other", ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("has not accepted a connection within 0.15 s"), "{error}");
}

#[tokio::test]
async fn who_could_not_be_reached_is_asked_last_for_a_while() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let server = Registry::with(content());
    let hosts = format!(
        "server = \"{}\"\n[host.\"https://{}\"]\ndial_timeout = \"150ms\"\n",
        server.url(),
        silent.local_addr().unwrap()
    );
    let directory = configured("example.org", &hosts);
    pull(&with(Some(directory.path()), LIMITS), "example.org/library/nginx", ANYBODY).await.unwrap();
    silent.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| silent.accept().ok()).count();
    assert_eq!(connections, 1, "for the manifest, and not again for the configuration and a layer");
}

#[tokio::test]
async fn who_sends_a_blob_wrong_is_asked_for_it_last() {
    let all = content();
    let mirror = Registry::start(move |request| match request.is_blob() {
        true => all.answer(request).sent(|bytes| Body::Whole(vec![0; bytes.len()])),
        false => all.answer(request),
    });
    let server = Registry::with(content());
    let hosts = format!("server = \"{}\"\n[host.\"{}\"]\n", server.url(), mirror.url());
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    let image = name("example.org/library/nginx");
    let manifest = client.manifest(&image, ANYBODY).await.unwrap();
    let error = client.document(&image, &manifest.config, ANYBODY).await.unwrap_err().to_string();
    assert!(error.contains("another digest than was asked for"), "{error}");
    client.document(&image, &manifest.config, ANYBODY).await.unwrap();

    let layer = &manifest.layers[0];
    for wrong in [true, true, false] {
        let bytes = super::read(client.blob(&image, layer, ANYBODY).await.unwrap()).await.unwrap();
        assert_eq!(bytes.iter().all(|byte| *byte == 0), wrong);
        // Not before whoever hashes it has said so.
        if mirror.lines().iter().filter(|line| line.contains(&layer.digest.to_string())).count() == 2 {
            client.was_wrong(layer.digest);
        }
    }
}

#[tokio::test]
async fn a_blob_goes_on_with_another_host() {
    let mut all = Content::default();
    let blob = all.blob("", vec![7; 1_000_000]);
    let of_mirror = all.clone();
    let mirror = Registry::start(move |request| match request.number {
        0 => of_mirror.answer(request).sent(|bytes| Body::Truncated(bytes, 10_000)),
        _ => Reply::status("500 Internal Server Error"),
    });
    let server = Registry::with(all);
    let hosts = format!("server = \"{}\"\n[host.\"{}\"]\n", server.url(), mirror.url());
    let directory = configured("example.org", &hosts);
    let client = with(Some(directory.path()), LIMITS);
    let stream = client.blob(&name("example.org/app"), &super::descriptor(&blob), ANYBODY).await.unwrap();
    assert_eq!(super::read(stream).await.unwrap(), vec![7; 1_000_000]);
    assert_eq!(server.asked()[0].header("range"), Some("bytes=10000-"));
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said() {
    let directory = configured("example.org", "[host.\"https://a\"]\ncapabilities = 1");
    let client = with(Some(directory.path()), LIMITS);
    let error = pull(&client, "example.org/app", ANYBODY).await.unwrap_err().to_string();
    let path = directory.path().join("example.org/hosts.toml");
    assert_eq!(error, format!("{}: host.\"https://a\".capabilities: must be an array", path.display()));
    // It is read anew.
    let server = Registry::with(content());
    configure(directory.path(), "example.org", &format!("server = \"{}\"", server.url()));
    pull(&client, "example.org/library/nginx", ANYBODY).await.unwrap();
}

#[tokio::test]
async fn credentials_reach_a_mirror_that_asks_for_them() {
    let all = content();
    let mirror = Registry::start(move |request| match request.header("authorization") {
        Some("Basic bWU6cHc=") => all.answer(request),
        _ => Reply::status("401 Unauthorized").with("WWW-Authenticate", "Basic"),
    });
    let directory = configured("example.org", &format!("[host.\"{}\"]", mirror.url()));
    let credential = coracle_registry::Credential::Basic {
        username: "me".to_owned(),
        password: coracle_registry::Secret::new("pw"),
    };
    let limits = coracle_registry::Limits { connect: Duration::from_secs(2), ..LIMITS };
    pull(&with(Some(directory.path()), limits), "example.org/library/nginx", &credential).await.unwrap();
}
