use std::time::{Duration, Instant};

use coracle_model::{Handler, HttpGet, PortRef, Probes, Scheme, TcpSocket};
use coracle_probe::{Checker, run_hook};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::node::{Answer, TestNode, exec, free_port, http_get, pod, target};
use crate::server::{Reply, Server, response};

async fn run(node: &TestNode, handler: Handler, limit: Option<Duration>) -> Result<(), String> {
    run_hook(&Checker::new().unwrap(), node, &target(pod(Probes::default())), &handler, limit).await
}

const WHOSE: &str =
    "for Container \"main\" in Pod \"web_default(0b8a9c1e-8b5e-4b43-9d0c-0d6b8f3d6a11)\" failed - error:";

#[tokio::test]
async fn programs() {
    let node = TestNode::scripted(|_, command| match &*command[0] {
        "good" => Answer::Exit(0, "fine"),
        "bad" => Answer::Exit(3, "no such \"thing\""),
        "none" => Answer::Cannot("no such program"),
        _ => Answer::Takes(Duration::from_secs(60), 0),
    });
    assert_eq!(run(&node, exec("good"), None).await, Ok(()));
    let bad = Handler::Exec(vec!["bad".to_owned(), "$(A)".to_owned()]);
    assert_eq!(
        run(&node, bad, None).await,
        Err(format!(
            "Exec lifecycle hook ([bad $(A)]) {WHOSE} command 'bad $(A)' exited with 3, message: \"no such \\\"thing\\\"\""
        ))
    );
    assert_eq!(
        run(&node, exec("none"), None).await,
        Err(format!("Exec lifecycle hook ([none]) {WHOSE} no such program"))
    );
    assert_eq!(
        run(&node, exec("slow"), Some(Duration::from_millis(50))).await,
        Err(format!("Exec lifecycle hook ([slow]) {WHOSE} command \"slow\" timed out"))
    );
}

#[tokio::test]
async fn any_answer_to_a_request_is_a_success() {
    for status in ["200 OK", "404 Not Found", "500 Internal Server Error"] {
        let server = Server::start(move |_| response(status, "", "")).await;
        assert_eq!(run(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/x")), None).await, Ok(()));
        assert!(server.requests()[0].contains("User-Agent: kube-lifecycle/1.37\r\n"));
    }
    let server =
        Server::start(|_| Reply::Hang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned())).await;
    let spec = Handler::HttpGet(http_get(server.port, "/x"));
    assert_eq!(run(&TestNode::new(), spec, Some(Duration::from_millis(50))).await, Ok(()));
}

#[tokio::test]
async fn requests_that_are_not_answered_fail() {
    let port = free_port().await;
    let get = format!("HTTP lifecycle hook (/x) {WHOSE}");
    assert_eq!(
        run(&TestNode::new(), Handler::HttpGet(http_get(port, "/x")), None).await,
        Err(format!(
            "{get} Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    );
    let server = Server::start(|_| response("302 Found", "Location: /x\r\n", "")).await;
    assert_eq!(
        run(&TestNode::new(), Handler::HttpGet(http_get(server.port, "/x")), None).await,
        Err(format!("{get} stopped after 10 redirects"))
    );
    assert_eq!(server.requests().len(), 10);
}

/// Answers everything in plain text, what is TLS among it.
async fn plain_server() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    (port, receiver)
}

#[tokio::test]
async fn https_to_a_plain_server_is_tried_again_without() {
    let (port, mut requests) = plain_server().await;
    let headers = [("Authorization", "secret"), ("X-Mine", "1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let spec = HttpGet { scheme: Scheme::Https, headers, ..http_get(port, "/x") };
    let node = TestNode::new();
    assert_eq!(run(&node, Handler::HttpGet(spec), None).await, Ok(()));
    assert_eq!(
        node.told(),
        [format!(
            "LifecycleHTTPFallback: request to HTTPS lifecycle hook 127.0.0.1:{port} got HTTP response, retry \
             with HTTP succeeded"
        )]
    );
    requests.recv().await.unwrap();
    let plain = requests.recv().await.unwrap();
    assert!(plain.starts_with("GET /x HTTP/1.1\r\n") && plain.contains("X-Mine: 1"), "{plain}");
    assert!(!plain.contains("secret"), "{plain}");
}

#[tokio::test]
async fn waits() {
    let began = Instant::now();
    let wait = Handler::Sleep(Duration::from_millis(100));
    assert_eq!(run(&TestNode::new(), wait.clone(), None).await, Ok(()));
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(run(&TestNode::new(), wait, Some(Duration::from_secs(9))).await, Ok(()));
    let long = Handler::Sleep(Duration::from_secs(5));
    assert_eq!(
        run(&TestNode::new(), long, Some(Duration::from_millis(20))).await,
        Err(format!("Sleep lifecycle hook (5) {WHOSE} container terminated before sleep hook finished"))
    );
}

#[tokio::test]
async fn what_the_api_has_and_nobody_carries_out() {
    let handler = Handler::TcpSocket(TcpSocket { host: None, port: PortRef::Number(80) });
    let failed = run(&TestNode::new(), handler, None).await;
    assert_eq!(failed, Err("Cannot run handler: invalid handler: tcpSocket".to_owned()));
}
