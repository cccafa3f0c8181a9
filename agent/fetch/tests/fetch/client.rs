//! Requests whose connections are used again.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use coracle_fetch::{Address, Call, Client, Error, Proxies, Response, Tls, Waits};
use coracle_tests::registry::{Body, Registry, Reply};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method};

use super::{SOON, no_proxies};

const WAITS: Waits = Waits { connect: SOON, answer: SOON };

fn client(proxies: Proxies) -> Client {
    Client::new(proxies, "test/1").unwrap()
}

async fn get(client: &Client, url: &str, waits: Waits) -> Result<Response, Error> {
    let address = Address::parse(url).unwrap();
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    client.send(Call { method: Method::GET, address: &address, headers, body }, &Tls::default(), waits).await
}

async fn text(client: &Client, url: &str) -> String {
    let response = get(client, url, WAITS).await.unwrap();
    String::from_utf8(response.whole(1000, SOON).await.unwrap()).unwrap()
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let server = Registry::start(|request| Reply::ok("text/plain", request.target.clone()));
    let client = client(no_proxies());
    for path in ["/a", "/b", "/c"] {
        assert_eq!(text(&client, &format!("{}{path}", server.url())).await, path);
    }
    let (one, other) = (format!("{}/d", server.url()), format!("{}/e", server.url()));
    let both = tokio::join!(get(&client, &one, WAITS), get(&client, &other, WAITS));
    for response in [both.0.unwrap(), both.1.unwrap()] {
        assert_eq!(response.whole(10, SOON).await.unwrap().len(), 2);
    }
    assert_eq!(server.connections(), 2, "one more where both are asked at once");
    // What was not read to its end is not used again, and neither of the two is left.
    for _ in 0..2 {
        drop(get(&client, &format!("{}/f", server.url()), WAITS).await.unwrap());
    }
    assert_eq!(text(&client, &format!("{}/g", server.url())).await, "/g");
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_has_ended_while_it_waited_is_replaced() {
    let seen = Mutex::new(HashSet::new());
    // Each connection serves one request, and is not said to end: the next one on it finds that out.
    let server = Registry::start(move |request| match seen.lock().unwrap().insert(request.connection) {
        true => Reply::ok("text/plain", "whole"),
        false => Reply::status("").body(Body::Closed),
    });
    let client = client(no_proxies());
    for _ in 0..4 {
        assert_eq!(text(&client, &format!("{}/x", server.url())).await, "whole");
    }
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn plain_requests_go_by_a_proxy_that_reads_them() {
    let proxy = Registry::start(|_| Reply::ok("text/plain", "proxied"));
    let url = format!("http://me:pw@{}", proxy.host());
    let proxies = Proxies::from_variables(|name| (name == "HTTP_PROXY").then(|| url.clone())).unwrap();
    let client = client(proxies);
    for _ in 0..2 {
        assert_eq!(text(&client, "http://registry.test/v2/").await, "proxied");
    }
    let asked = proxy.asked();
    assert!(asked.iter().all(|one| one.target == "http://registry.test/v2/"), "{asked:?}");
    assert!(asked.iter().all(|one| one.header("host") == Some("registry.test")));
    assert!(asked.iter().all(|one| one.header("proxy-authorization") == Some("Basic bWU6cHc=")));
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn each_step_has_its_time() {
    let short = Duration::from_millis(100);
    let silent = Registry::start(|_| Reply::status("").body(Body::Silence));
    let waits = Waits { answer: short, ..WAITS };
    let error = get(&client(no_proxies()), &silent.url(), waits).await.unwrap_err();
    assert_eq!(error.to_string(), "has not answered within 0.1 s");
    assert!(error.is_passing() && !error.is_unconnected());

    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let waits = Waits { connect: short, ..WAITS };
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let error = get(&client(no_proxies()), &url, waits).await.unwrap_err();
    assert_eq!(error.to_string(), "has not accepted a connection within 0.1 s");
    assert!(error.is_passing() && error.is_unconnected());
}

#[tokio::test]
async fn statuses_are_answers_and_redirects_are_not_followed() {
    let server = Registry::start(|request| match request.number {
        0 => Reply::redirect("/elsewhere"),
        _ => Reply::error("404 Not Found", "X", "y"),
    });
    let client = client(no_proxies());
    for status in [307, 404] {
        let response = get(&client, &server.url(), WAITS).await.unwrap();
        assert_eq!(response.status.as_u16(), status);
        response.discard().await;
    }
    assert_eq!((server.asked().len(), server.connections()), (2, 1));
}
