use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coracle_model::{ContainerPort, Handler, PortRef, Protocol};
use coracle_probe::{Checker, Endpoint, Outcome, attempt};

use crate::node::{Seen, TestNode, ask, ask_for, free_port, http_get, pod_with, target};
use crate::server::{Reply, Server, response};

async fn outcome(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Outcome {
    let server = Server::start(reply).await;
    ask(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/healthz"))).await
}

#[tokio::test]
async fn the_status_decides() {
    for (status, expected) in [
        ("200 OK", Outcome::Success),
        ("204 No Content", Outcome::Success),
        ("299 Odd", Outcome::Success),
        ("300 Multiple Choices", warning("")),
        ("304 Not Modified", warning("")),
        // To nowhere.
        ("302 Found", warning("")),
        ("400 Bad Request", failed(400)),
        ("404 Not Found", failed(404)),
        ("500 Internal Server Error", failed(500)),
        ("503 Service Unavailable", failed(503)),
    ] {
        let text = status.to_owned();
        assert_eq!(outcome(move |_| response(&text, "", "")).await, expected, "{status}");
    }
}

fn failed(status: u16) -> Outcome {
    Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
}

fn warning(body: &str) -> Outcome {
    Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
}

#[tokio::test]
async fn a_request_is_the_kubelets() {
    let server = Server::start(|_| response("200 OK", "", "")).await;
    let node = TestNode::new();
    let mut spec = http_get(server.port, "healthz?full=1");
    assert_eq!(ask(&node, Handler::HttpGet(spec.clone())).await, Outcome::Success);
    spec.headers = vec![("Host".to_owned(), "example.org".to_owned()), ("X-Mine".to_owned(), "1".to_owned())];
    assert_eq!(ask(&node, Handler::HttpGet(spec)).await, Outcome::Success);
    let own_host = format!("Host: 127.0.0.1:{}", server.port);
    for (request, headers) in server.requests().iter().zip([
        &["Accept: */*", "Connection: close", &own_host, "User-Agent: kube-probe/1.37"][..],
        &[
            "Accept: */*",
            "Connection: close",
            "Host: example.org",
            "User-Agent: kube-probe/1.37",
            "X-Mine: 1",
        ],
    ]) {
        let mut lines = request.trim_end().lines();
        assert_eq!(lines.next(), Some("GET /healthz?full=1 HTTP/1.1"));
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable();
        assert_eq!(lines, headers);
    }
}

#[tokio::test]
async fn a_pod_is_reached_by_its_address_from_the_node() {
    for (address, text) in [("127.0.0.7", "127.0.0.7"), ("::1", "[::1]")] {
        let address: std::net::IpAddr = address.parse().unwrap();
        let server = Server::on(SocketAddr::new(address, 0), |_| response("200 OK", "", "")).await;
        let mut node = TestNode::new();
        node.address = Some(address);
        assert_eq!(ask(&node, Handler::HttpGet(http_get(server.port, "/"))).await, Outcome::Success);
        let endpoint = Endpoint::Network(SocketAddr::new(address, server.port));
        assert_eq!(node.seen()[0].1, Seen::Connect(endpoint));
        assert!(server.requests()[0].contains(&format!("Host: {text}:{}\r\n", server.port)));
    }
}

#[tokio::test]
async fn a_pod_without_an_address_is_its_loopback_and_a_host_is_seen_from_the_node() {
    let server = Server::start(|_| response("200 OK", "", "")).await;
    let address = SocketAddr::from(([127, 0, 0, 1], server.port));
    for (host, endpoint) in [
        (None, Endpoint::Pod(address)),
        (Some(""), Endpoint::Pod(address)),
        (Some("127.0.0.1"), Endpoint::Network(address)),
    ] {
        let node = TestNode::new();
        let spec = coracle_model::HttpGet { host: host.map(str::to_owned), ..http_get(server.port, "/") };
        assert_eq!(ask(&node, Handler::HttpGet(spec)).await, Outcome::Success);
        assert_eq!(node.seen()[0].1, Seen::Connect(endpoint));
    }
    let named = coracle_model::HttpGet { host: Some("localhost".to_owned()), ..http_get(server.port, "/") };
    assert_eq!(ask(&TestNode::new(), Handler::HttpGet(named)).await, Outcome::Success);
    assert!(server.requests()[3].contains(&format!("Host: localhost:{}\r\n", server.port)));
}

#[tokio::test]
async fn a_server_on_ipv6_alone_is_found_in_the_pod() {
    let any = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
    let server = Server::on(any, |_| response("200 OK", "", "")).await;
    assert_eq!(ask(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/"))).await, Outcome::Success);
}

#[tokio::test]
async fn ports_have_names() {
    let server = Server::start(|_| response("200 OK", "", "")).await;
    let pod = pod_with(|main| {
        main.ports = vec![ContainerPort {
            name: Some("web".to_owned()),
            container_port: server.port,
            host_port: None,
            host_ip: None,
            protocol: Protocol::Tcp,
        }];
    });
    let checker = Checker::new().unwrap();
    let mut outcomes = Vec::new();
    for name in ["web", "other"] {
        let spec =
            coracle_model::HttpGet { port: PortRef::Name(name.to_owned()), ..http_get(server.port, "/") };
        let (node, target) = (TestNode::new(), target(pod.clone()));
        outcomes
            .push(attempt(&checker, &node, &target, &Handler::HttpGet(spec), Duration::from_secs(1)).await);
    }
    let unknown = "port other not found: the container declares no port of that name";
    assert_eq!(outcomes, [Outcome::Success, Outcome::Unknown(unknown.to_owned())]);
}

// --- Redirects ---

#[tokio::test]
async fn redirects_within_the_host_are_followed() {
    let server = Server::start(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/a" => response("301 Moved Permanently", "Location: b/c\r\n", ""),
            "/b/c" => response("307 Temporary Redirect", "Location: ../d?e=1\r\n", ""),
            "/d?e=1" => {
                let port = request.split("X-Port: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                let location = format!("Location: http://127.0.0.1:{}/f\r\n", port.unwrap_or_default());
                response("302 Found", &location, "")
            }
            "/f" => response("404 Not Found", "", ""),
            _ => response("500 Internal Server Error", "", ""),
        }
    })
    .await;
    let mut spec = http_get(server.port, "/a");
    spec.headers =
        vec![("Host".to_owned(), "example.org".to_owned()), ("X-Port".to_owned(), server.port.to_string())];
    assert_eq!(ask(&TestNode::new(), Handler::HttpGet(spec)).await, failed(404));
    let hosts: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.lines().find(|line| line.starts_with("Host")).unwrap().to_owned())
        .collect();
    let own = format!("Host: 127.0.0.1:{}", server.port);
    assert_eq!(hosts, ["Host: example.org", "Host: example.org", "Host: example.org", &own]);
}

#[tokio::test]
async fn redirects_to_another_host_are_not_and_warn() {
    let server =
        Server::start(|_| response("302 Found", "Location: http://example.org/\r\n", "elsewhere")).await;
    let node = TestNode::new();
    assert_eq!(ask(&node, Handler::HttpGet(http_get(server.port, "/"))).await, warning("elsewhere"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redirects_without_end_warn_after_ten_requests() {
    let server = Server::start(|_| response("302 Found", "Location: /again\r\n", "round")).await;
    let outcome = ask(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/"))).await;
    assert_eq!(outcome, warning("round"));
    assert_eq!(server.requests().len(), 10);
}

// --- Bodies ---

#[tokio::test]
async fn no_more_of_a_body_is_read_than_is_kept() {
    // Longer than is ever sent: who read on would wait for the rest.
    let head = "HTTP/1.1 302 Found\r\nContent-Length: 1000000\r\n\r\n";
    let outcome = outcome(move |_| Reply::Hang(format!("{head}{}", "x".repeat(10 * 1024)))).await;
    assert_eq!(outcome, warning(&"x".repeat(10 * 1024)));
}

#[tokio::test]
async fn bodies_come_in_chunks_and_without_a_length() {
    let chunked = "HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(outcome(move |_| Reply::Say(chunked.to_owned())).await, warning("abcde"));
    let to_the_end = "HTTP/1.0 302 Found\r\n\r\nabc";
    assert_eq!(outcome(move |_| Reply::Say(to_the_end.to_owned())).await, warning("abc"));
}

#[tokio::test]
async fn a_body_that_breaks_off_says_nothing() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    assert!(matches!(outcome(move |_| Reply::Say(text.to_owned())).await, Outcome::Unknown(_)));
}

// --- Failures ---

#[tokio::test]
async fn what_does_not_answer_in_time_fails() {
    let server = Server::start(|request| {
        if request.contains("/body") {
            Reply::Hang("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_owned())
        } else {
            Reply::Hang("HTTP/1.1 200".to_owned())
        }
    })
    .await;
    let port = server.port;
    let timeout = Duration::from_millis(200);
    let began = Instant::now();
    let head = ask_for(&TestNode::new(), Handler::HttpGet(http_get(port, "/head")), timeout).await;
    let body = ask_for(&TestNode::new(), Handler::HttpGet(http_get(port, "/body")), timeout).await;
    assert!(began.elapsed() >= timeout * 2);
    assert_eq!(
        head,
        Outcome::Failure(format!(
            "Get \"http://127.0.0.1:{port}/head\": context deadline exceeded (Client.Timeout exceeded while \
             awaiting headers)"
        ))
    );
    assert_eq!(
        body,
        Outcome::Failure(
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn what_is_not_there_fails() {
    let port = free_port().await;
    let outcome = ask(&TestNode::new(), Handler::HttpGet(http_get(port, "/x"))).await;
    assert_eq!(
        outcome,
        Outcome::Failure(format!(
            "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    );
    let nowhere =
        coracle_model::HttpGet { host: Some("no-such-host.invalid".to_owned()), ..http_get(80, "/") };
    let Outcome::Failure(message) =
        ask_for(&TestNode::new(), Handler::HttpGet(nowhere), Duration::from_secs(20)).await
    else {
        panic!("a host that is not there was reached");
    };
    assert!(
        message
            .starts_with("Get \"http://no-such-host.invalid:80/\": dial tcp: lookup no-such-host.invalid: ")
    );
}

#[tokio::test]
async fn what_is_no_http_server_fails() {
    let get = |port: u16, error: &str| Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/\": {error}"));
    let ask_it = async |reply: fn() -> Reply| {
        let server = Server::start(move |_| reply()).await;
        (ask(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/"))).await, server.port)
    };
    let (closed, port) = ask_it(|| Reply::Say(String::new())).await;
    assert_eq!(closed, get(port, "EOF"));
    let (reset, port) = ask_it(|| Reply::Reset).await;
    assert_eq!(reset, get(port, "connection reset by peer"));
    let (nonsense, port) = ask_it(|| Reply::Say("220 mail.example.org ESMTP\r\n".to_owned())).await;
    let Outcome::Failure(message) = nonsense else { panic!("{nonsense:?}") };
    let start = format!("Get \"http://127.0.0.1:{port}/\": net/http: HTTP/1.x transport connection broken: ");
    assert!(message.starts_with(&start), "{message}");
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails() {
    let mut spec = http_get(free_port().await, "/");
    spec.headers = vec![("X-Two".to_owned(), "a\nb".to_owned())];
    let Outcome::Failure(message) = ask(&TestNode::new(), Handler::HttpGet(spec)).await else {
        panic!("the request was made")
    };
    assert!(message.ends_with("net/http: invalid header field \"X-Two\""), "{message}");
}
