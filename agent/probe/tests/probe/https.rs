use std::sync::Arc;

use coracle_model::{Handler, HttpGet, Scheme};
use coracle_probe::Outcome;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion, version};

use crate::node::{TestNode, ask, http_get};
use crate::server::{Server, response};

/// A TLS server's side, with a certificate nobody knows that is made out to somebody else.
fn acceptor(versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> TlsAcceptor {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["other.example.org".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(1999, 1, 1);
    let certificate = CertificateDer::from(params.self_signed(&key).unwrap());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves HTTP/1.1 over TLS without saying goodbye, and keeps the name a client asks for.
async fn serve(acceptor: TlsAcceptor, status: &'static str) -> (u16, Arc<std::sync::Mutex<Option<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = Arc::new(std::sync::Mutex::new(None));
    let asked = Arc::clone(&name);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            *asked.lock().unwrap() = stream.get_ref().1.server_name().map(str::to_owned);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\nbody").as_bytes()).await;
        }
    });
    (port, name)
}

fn https(host: Option<&str>, port: u16) -> Handler {
    let spec = HttpGet { scheme: Scheme::Https, host: host.map(str::to_owned), ..http_get(port, "/x") };
    Handler::HttpGet(spec)
}

#[tokio::test]
async fn no_certificate_is_too_bad() {
    for versions in [ALL_VERSIONS, &[&version::TLS12]] {
        let (port, name) = serve(acceptor(versions, &[]), "200 OK").await;
        assert_eq!(ask(&TestNode::new(), https(None, port)).await, Outcome::Success);
        assert_eq!(*name.lock().unwrap(), None, "an address is not named");
        assert_eq!(ask(&TestNode::new(), https(Some("localhost"), port)).await, Outcome::Success);
        assert_eq!(name.lock().unwrap().as_deref(), Some("localhost"));
    }
    let (port, _) = serve(acceptor(ALL_VERSIONS, &["http/1.1"]), "500 Internal Server Error").await;
    let expected = Outcome::Failure("HTTP probe failed with statuscode: 500".to_owned());
    assert_eq!(ask(&TestNode::new(), https(None, port)).await, expected);
}

#[tokio::test]
async fn servers_that_want_it_are_asked_by_http2() {
    let acceptor = acceptor(ALL_VERSIONS, &["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = Response::builder().status(404).body(()).unwrap();
        respond.send_response(response, true).unwrap();
        while connection.accept().await.is_some() {}
        request
    });
    let expected = Outcome::Failure("HTTP probe failed with statuscode: 404".to_owned());
    assert_eq!(ask(&TestNode::new(), https(None, port)).await, expected);
    let request = served.await.unwrap();
    assert_eq!(request.uri().to_string(), format!("https://127.0.0.1:{port}/x"));
    assert_eq!(request.headers()["user-agent"], "kube-probe/1.37");
}

#[tokio::test]
async fn a_server_without_tls_fails() {
    let server = Server::start(|_| response("200 OK", "", "")).await;
    // Whatever comes first is answered in plain text.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    drop(server);
    assert_eq!(
        ask(&TestNode::new(), https(None, port)).await,
        Outcome::Failure(format!(
            "Get \"https://127.0.0.1:{port}/x\": http: server gave HTTP response to HTTPS client"
        ))
    );
}
