//! Where redirects lead, and what goes with them.

use super::server::{Server, answer, header};
use super::{changed, fetcher, first};

fn to(status: &str, location: &str) -> String {
    answer(status, &format!("Location: {location}\r\n"), "")
}

#[tokio::test]
async fn redirects_are_followed_with_the_headers_as_long_as_they_stay() {
    for status in
        ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let server = Server::start(move |request| match request.split(' ').nth(1) {
            Some("/a/b") => to(status, "c?d"),
            Some("/a/c?d") => answer("200 OK", "", "pods"),
            _ => answer("404 Not Found", "", ""),
        })
        .await;
        let mut fetcher = fetcher(&server.url("/a/b"), &[("X-Token", "secret")]);
        assert_eq!(changed(first(&mut fetcher).await).0, "pods", "{status}");
        assert_eq!(header(&server.requests()[1], "x-token"), Some("secret"));
    }
}

#[tokio::test]
async fn no_header_leaves_its_origin_nor_comes_back() {
    let home = Server::start(|request| match request.split(' ').nth(1) {
        Some("/back") => answer("200 OK", "", "pods"),
        Some(away) => to("302 Found", &format!("http://{}", &away[1..])),
        None => answer("400 Bad Request", "", ""),
    })
    .await;
    let back = home.url("/back");
    let other = Server::start(move |_| to("302 Found", &back)).await;
    let url = format!("http://me:pw@{}/{}/x", home.address, other.address);
    let mut fetcher = fetcher(&url, &[("X-Token", "secret"), ("Authorization", "secret")]);
    assert_eq!(changed(first(&mut fetcher).await).0, "pods");
    let (asked, elsewhere) = (home.requests(), other.requests());
    assert_eq!(header(&asked[0], "x-token"), Some("secret"));
    for request in [&elsewhere[0], &asked[1]] {
        assert_eq!((header(request, "x-token"), header(request, "authorization")), (None, None), "{request}");
    }
}

#[tokio::test]
async fn redirects_have_an_end() {
    let server = Server::start(|_| to("302 Found", "/again")).await;
    let error = first(&mut fetcher(&server.url("/"), &[])).await.unwrap_err().to_string();
    assert_eq!(error, "is redirected (status 302 Found), as were 10 requests in a row");
    assert_eq!(server.requests().len(), 10);
}

#[tokio::test]
async fn redirects_to_nowhere_are_said() {
    for (given, expected) in [
        (answer("302 Found", "", ""), "but not told to where"),
        (to("302 Found", "ftp://h/"), "but not to where one can be: must be an absolute http or https URL"),
        (to("302 Found", "/\u{fc}"), "but to what is no URL"),
        (answer("300 Multiple Choices", "", ""), "has answered with status 300"),
    ] {
        let server = Server::start(move |_| given.clone()).await;
        let error = first(&mut fetcher(&server.url("/"), &[])).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
