//! Answers that are none.

use std::time::Duration;

use coracle_fetch::Limits;

use super::server::{Server, answer};
use super::{LIMITS, changed, fetcher, first, no_proxies, with};

/// What comes of an answer.
async fn fault(answer: String) -> Result<String, String> {
    let server = Server::start(move |_| answer.clone()).await;
    let mut fetcher = fetcher(&server.url("/?secret"), &[("X", "secret")]);
    match first(&mut fetcher).await {
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains("secret"), "{text}");
            Err(text)
        }
        answer => Ok(changed(answer).0),
    }
}

#[tokio::test]
async fn only_a_whole_answer_is_one() {
    let full = "x".repeat(1000);
    for (given, expected) in [
        (answer("200 OK", "", ""), Ok("")),
        (answer("200 OK", "", &full), Ok(full.as_str())),
        (answer("200 OK", "Content-Encoding: identity\r\n", "a"), Ok("a")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_owned(), Ok("a")),
        (answer("200 OK", "", &"x".repeat(1001)), Err("has answered with more than 1000 bytes")),
        (
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
                "x".repeat(1001)
            ),
            Err("has answered with more than 1000 bytes"),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nkind: Pod".to_owned(), Err("without telling the length")),
        ("HTTP/1.0 200 OK\r\n\r\nkind: Pod".to_owned(), Err("without telling the length")),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nkind".to_owned(),
            Err("end of file before message length reached"),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nkind\r\n".to_owned(),
            Err("unexpected EOF during chunk"),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Le".to_owned(), Err("connection closed before message completed")),
        (answer("200 OK", "Content-Encoding: gzip\r\n", "a"), Err("content encoding \"gzip\"")),
        (answer("204 No Content", "", ""), Err("status 204 No Content")),
        (answer("206 Partial Content", "", "a"), Err("status 206")),
        (answer("404 Not Found", "", "secret"), Err("has answered with status 404 Not Found")),
        (answer("500 Internal Server Error", "", ""), Err("status 500")),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), Err("invalid HTTP")),
    ] {
        let shown = given.chars().take(60).collect::<String>();
        match (fault(given).await, expected) {
            (Ok(body), Ok(expected)) => assert_eq!(body, expected, "{shown}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{shown}: {error}"),
            (other, _) => panic!("{shown} gave {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let limits = Limits { time: Duration::from_millis(200), ..LIMITS };
    for start in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nkind"] {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, start.as_bytes()).await.unwrap();
            // Held open until the other side has gone.
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        };
        let mut fetcher = with(&url, &[], no_proxies(), limits);
        // Both end: the connection is not held when nobody waits for it any more.
        let (answer, ()) = tokio::join!(first(&mut fetcher), serve);
        assert_eq!(answer.unwrap_err().to_string(), "has not answered completely within 0.2 s");
    }
}

#[tokio::test]
async fn who_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = first(&mut fetcher(&format!("http://{address}/"), &[])).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot connect to {address}: Connection refused (os error 111)"));
    let error = first(&mut fetcher("http://nobody.invalid/", &[])).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot look up nobody.invalid: "), "{error}");
}

#[tokio::test]
async fn who_asks_for_time_is_given_it() {
    for (status, asked, expected) in
        [("503 Service Unavailable", "120", 120), ("429 Too Many Requests", "3", 3)]
    {
        let server = Server::start(move |_| answer(status, &format!("Retry-After: {asked}\r\n"), "")).await;
        let error = first(&mut fetcher(&server.url("/"), &[])).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(expected)), "{error}");
    }
}
