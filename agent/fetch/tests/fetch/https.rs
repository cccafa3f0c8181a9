//! HTTPS, with the roots that the system is told of.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_fetch::Proxies;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{DEFAULT_VERSIONS, ServerConfig};

use super::server::{answer, head};
use super::{LIMITS, changed, fetcher, first, no_proxies, with};

/// Says where the root is that a process of this test's trusts.
const ROOT: &str = "SSL_CERT_FILE";

type Root = CertifiedIssuer<'static, KeyPair>;

fn root() -> Root {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Serves `name` on the loopback, known by a certificate of the root's; the port.
async fn serve(root: &Root, name: &str) -> u16 {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, root).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let request = head(&mut stream).await;
            let line = request.lines().next().unwrap_or_default();
            let body = answer("200 OK", "", line);
            // Without a farewell: the length tells the end.
            let _ = stream.write_all(body.as_bytes()).await;
            let _ = stream.flush().await;
        }
    });
    port
}

/// A certificate as files have it.
fn pem(root: &Root) -> String {
    let body = BASE64_STANDARD.encode(root.der());
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Runs a test of this name again, in a process that trusts one root alone; in that second run, the root.
fn trusting(test: &str) -> Option<Root> {
    const SECOND: &str = "CORACLE_TEST_TRUSTING";
    if std::env::var_os(SECOND).is_some() {
        let root = root();
        std::fs::write(std::env::var_os(ROOT).unwrap(), pem(&root)).unwrap();
        return Some(root);
    }
    let directory = std::env::temp_dir().join(format!("coracle-fetch-{}-{test}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("https::{test}"), "--nocapture"])
        .env(ROOT, directory.join("root.pem"))
        .env_remove("SSL_CERT_DIR")
        .env(SECOND, "1")
        .status();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(status.unwrap().success());
    None
}

#[test]
fn only_who_the_system_trusts_is_believed() {
    let Some(trusted) = trusting("only_who_the_system_trusts_is_believed") else { return };
    block_on(async {
        let port = serve(&trusted, "localhost").await;
        let url = format!("https://localhost:{port}/pods");
        let mut asking = fetcher(&url, &[]);
        for _ in 0..2 {
            assert_eq!(changed(first(&mut asking).await).0, "GET /pods HTTP/1.1");
        }

        let port = serve(&trusted, "example.org").await;
        let error = first(&mut fetcher(&format!("https://localhost:{port}/"), &[])).await.unwrap_err();
        assert!(error.to_string().contains("not valid for name \"localhost\""), "{error}");

        let port = serve(&root(), "localhost").await;
        let error = first(&mut fetcher(&format!("https://localhost:{port}/"), &[])).await.unwrap_err();
        assert!(error.to_string().contains("TLS with localhost: invalid peer certificate"), "{error}");
    });
}

#[test]
fn roots_are_read_again_after_a_failure() {
    let Some(trusted) = trusting("roots_are_read_again_after_a_failure") else { return };
    block_on(async {
        let file = std::env::var(ROOT).unwrap();
        let file = Path::new(&file);
        let others = file.with_extension("others");
        std::fs::rename(file, &others).unwrap();
        std::fs::write(file, pem(&root())).unwrap();
        let port = serve(&trusted, "localhost").await;
        let mut asking = fetcher(&format!("https://localhost:{port}/"), &[]);
        first(&mut asking).await.unwrap_err();
        std::fs::write(file, "").unwrap();
        let error = first(&mut asking).await.unwrap_err().to_string();
        assert!(error.contains("no root certificates are found") && error.contains(ROOT), "{error}");
        std::fs::rename(&others, file).unwrap();
        changed(first(&mut asking).await);
    });
}

#[test]
fn who_speaks_no_tls_is_told_from_one_whom_nobody_is_there_to_vouch_for() {
    let test = "who_speaks_no_tls_is_told_from_one_whom_nobody_is_there_to_vouch_for";
    if trusting(test).is_none() {
        return;
    }
    block_on(async {
        std::fs::write(std::env::var(ROOT).unwrap(), "").unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
            }
        });
        let error = first(&mut fetcher(&format!("https://localhost:{port}/"), &[])).await.unwrap_err();
        assert!(error.has_answered_without_tls(), "{error}");
    });
}

#[test]
fn https_goes_through_a_proxy_that_cannot_read_it() {
    let Some(trusted) = trusting("https_goes_through_a_proxy_that_cannot_read_it") else { return };
    block_on(async {
        let target = serve(&trusted, "pods.test").await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = format!("http://me:pw@{}", listener.local_addr().unwrap());
        let proxies = Proxies::from_variables(|name| (name == "HTTPS_PROXY").then(|| proxy.clone())).unwrap();
        let relay = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut onward = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            request
        };
        let mut fetcher = with("https://pods.test/x", &[("X-Token", "secret")], proxies, LIMITS);
        let (answer, request) = tokio::join!(first(&mut fetcher), relay);
        assert_eq!(changed(answer).0, "GET /x HTTP/1.1");
        assert!(request.starts_with("CONNECT pods.test:443 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Basic bWU6cHc=") && !request.contains("secret"), "{request}");
    });
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_not_trusted() {
    if trusting("a_server_without_tls_is_told_from_one_that_is_not_trusted").is_none() {
        return;
    }
    block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer("400 Bad Request", "", "").as_bytes()).await.unwrap();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        };
        let mut fetcher = with(&url, &[], no_proxies(), LIMITS);
        let (given, ()) = tokio::join!(first(&mut fetcher), serve);
        let error = given.unwrap_err().to_string();
        assert!(error.contains("TLS with 127.0.0.1: ") && !error.contains("certificate"), "{error}");
    });
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}
