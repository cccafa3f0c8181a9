//! What a request says, and answers that nothing has changed.

use coracle_fetch::{Answer, Error, Validators};

use super::server::{Server, answer, header};
use super::{changed, fetcher, first};

#[tokio::test]
async fn what_is_asked() {
    let server = Server::start(|_| answer("200 OK", "", "pods")).await;
    let url = format!("http://me:pw@{}/a?b=c", server.address);
    let mut fetcher = fetcher(&url, &[("X-Token", "one"), ("X-Token", "two"), ("User-Agent", "mine")]);
    assert_eq!(changed(first(&mut fetcher).await).0, "pods");
    let request = server.requests().remove(0);
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    for (name, value) in [
        ("host", Some(server.address.to_string())),
        ("accept", Some("*/*".to_owned())),
        ("authorization", Some("Basic bWU6cHc=".to_owned())),
        ("user-agent", Some("mine".to_owned())),
        ("if-none-match", None),
        ("if-modified-since", None),
        ("accept-encoding", None),
    ] {
        assert_eq!(header(&request, name), value.as_deref(), "{name} of {request}");
    }
    assert_eq!(request.to_lowercase().matches("x-token").count(), 2, "{request}");
}

#[tokio::test]
async fn the_same_is_not_sent_again() {
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (headers, name, value) in [
        ("ETag: W/\"1\"\r\n".to_owned(), "if-none-match", "W/\"1\""),
        (format!("Last-Modified: {DATE}\r\n"), "if-modified-since", DATE),
    ] {
        let given = headers.clone();
        let server = Server::start(move |request| match header(request, name) {
            Some(known) if known == value => "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
            _ => answer("200 OK", &given, "pods"),
        })
        .await;
        let mut fetcher = fetcher(&server.url("/"), &[]);
        let (_, validators) = changed(first(&mut fetcher).await);
        for _ in 0..2 {
            assert!(matches!(fetcher.check(&validators).await.unwrap(), Answer::Unchanged));
        }
        changed(first(&mut fetcher).await);
        assert_eq!(server.requests().len(), 4);
    }
}

#[tokio::test]
async fn who_gives_no_validators_is_asked_without_condition() {
    let server = Server::start(|_| answer("200 OK", "", "pods")).await;
    let mut fetcher = fetcher(&server.url("/"), &[]);
    let (_, validators) = changed(first(&mut fetcher).await);
    assert_eq!(validators, Validators::default());
    changed(fetcher.check(&validators).await);
    assert_eq!(header(&server.requests()[1], "if-none-match"), None);
}

#[tokio::test]
async fn not_modified_is_no_answer_to_an_unconditional_request() {
    let server = Server::start(|_| "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()).await;
    let error = first(&mut fetcher(&server.url("/"), &[])).await.unwrap_err();
    assert!(matches!(error, Error::Status { status, .. } if status.as_u16() == 304), "{error:?}");
}

#[tokio::test]
async fn tags_are_told_to_whom_they_are_from() {
    let new = Server::start(|_| answer("200 OK", "ETag: \"1\"\r\n", "new")).await;
    let moved = new.url("/moved");
    let old = Server::start(move |request| match header(request, "if-none-match") {
        Some(_) => "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        None => answer("302 Found", &format!("Location: {moved}\r\n"), ""),
    })
    .await;
    let mut fetcher = fetcher(&old.url("/"), &[]);
    let (_, validators) = changed(first(&mut fetcher).await);
    assert_eq!(changed(fetcher.check(&validators).await).0, "new");
    assert_eq!(header(&new.requests()[1], "if-none-match"), Some("\"1\""));
}
