//! Plain HTTP by a proxy.

use coracle_fetch::Proxies;

use super::server::{Server, answer, header};
use super::{LIMITS, changed, first, with};

fn by(server: &Server) -> Proxies {
    let address = format!("http://me:pw@{}", server.address);
    Proxies::from_variables(|name| {
        name.ends_with("_PROXY").then(|| if name == "NO_PROXY" { String::new() } else { address.clone() })
    })
    .unwrap()
}

#[tokio::test]
async fn a_proxy_is_told_the_whole_address_and_its_own_password() {
    let proxy = Server::start(|request| match request.contains("//one.test/") {
        true => answer("302 Found", "Location: http://two.test/y\r\n", ""),
        false => answer("200 OK", "", "pods"),
    })
    .await;
    let mut fetcher = with("http://a:b@one.test/x?y", &[("X-Token", "secret")], by(&proxy), LIMITS);
    assert_eq!(changed(first(&mut fetcher).await).0, "pods");
    let requests = proxy.requests();
    assert!(requests[0].starts_with("GET http://one.test/x?y HTTP/1.1\r\n"), "{}", requests[0]);
    assert_eq!(header(&requests[0], "host"), Some("one.test"));
    assert_eq!(header(&requests[0], "authorization"), Some("Basic YTpi"));
    assert_eq!(header(&requests[0], "x-token"), Some("secret"));
    assert!(requests[1].starts_with("GET http://two.test/y HTTP/1.1\r\n"), "{}", requests[1]);
    assert_eq!((header(&requests[1], "authorization"), header(&requests[1], "x-token")), (None, None));
    for request in &requests {
        assert_eq!(header(request, "proxy-authorization"), Some("Basic bWU6cHc="));
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let proxy = Server::start(|_| answer("407 Proxy Authentication Required", "", "")).await;
    let mut fetcher = with("https://one.test/x", &[], by(&proxy), LIMITS);
    let error = first(&mut fetcher).await.unwrap_err().to_string();
    let expected = format!(
        "the proxy {} does not connect to one.test:443: 407 Proxy Authentication Required",
        proxy.address
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in ["http://one.test/x", "https://one.test/x"] {
        let by = Proxies::from_variables(|name| (name == "ALL_PROXY").then(|| format!("http://{nobody}")));
        let mut fetcher = with(url, &[], by.unwrap(), LIMITS);
        let error = first(&mut fetcher).await.unwrap_err();
        let expected =
            format!("the proxy {nobody}, which the environment names: cannot connect to {nobody}: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.is_passing() && error.is_unconnected());
    }
}
